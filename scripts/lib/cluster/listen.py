"""listen.py ADDRESS:PORT COMMAND...: runs COMMAND with a listening socket of this network namespace as descriptor 3."""
import os
import socket
import sys

host, port = sys.argv[1].rsplit(":", 1)
listener = socket.create_server((host, int(port)), backlog=1024)
if listener.fileno() != 3:
    os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.execvp(sys.argv[2], sys.argv[2:])
