"""door.py ADDRESS:PORT: passes each connection of the listening socket on descriptor 3 on to ADDRESS:PORT."""
import asyncio
import socket
import sys

HOST, PORT = sys.argv[1].rsplit(":", 1)


async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def serve(reader, writer):
    writers = [writer]
    try:
        far_reader, far_writer = await asyncio.open_connection(HOST, int(PORT))
        writers.append(far_writer)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
    except OSError as error:
        print(f"door: {error}", file=sys.stderr)
    finally:
        for each in writers:
            each.close()


async def main():
    listener = socket.socket(fileno=3)
    here = "{}:{}".format(*listener.getsockname())
    server = await asyncio.start_server(serve, sock=listener)
    print(f"pods reach {HOST}:{PORT} at {here}", flush=True)
    await server.serve_forever()


try:
    asyncio.run(main())
except KeyboardInterrupt:
    pass
