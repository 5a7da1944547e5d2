"""kubectl port-forward of two ports: an HTTP request through one, 2 MB of TCP echo through the other."""
import socket
import subprocess
import sys
import threading
import urllib.request

SIZE = 2_000_000


def http(port):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    body = opener.open(f"http://127.0.0.1:{port}/", timeout=10).read()
    assert body == b"hello\n", body


def echo(port):
    connection = socket.create_connection(("127.0.0.1", port), 10)

    def send():
        connection.sendall(b"z" * SIZE)
        connection.shutdown(socket.SHUT_WR)

    threading.Thread(target=send, daemon=True).start()
    received = 0
    while received < SIZE:
        data = connection.recv(65536)
        if not data:
            break
        received += len(data)
    assert received == SIZE, received


forward = subprocess.Popen(["kubectl", "port-forward", sys.argv[1], ":8080", ":9000"],
                           stdout=subprocess.PIPE, text=True)
try:
    ports = []
    for line in forward.stdout:
        if "127.0.0.1:" in line:
            ports.append(int(line.split("127.0.0.1:")[1].split()[0]))
        if len(ports) == 2:
            break
    assert len(ports) == 2, "kubectl port-forward ended early"
    http(ports[0])
    echo(ports[1])
finally:
    forward.terminate()
    forward.wait()
