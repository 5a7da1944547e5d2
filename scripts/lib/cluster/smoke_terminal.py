"""kubectl exec -it in a real terminal: the pod must see one, and the exit code must come back."""
import os
import pty
import sys

pid, terminal = pty.fork()
if pid == 0:
    os.execvp("kubectl", ["kubectl", "exec", "-it", sys.argv[1], "--", "sh", "-c", "tty; stty size; exit 5"])
output = b""
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    if not data:
        break
    output += data
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(output.decode(errors="replace"), "exit code", code)
sys.exit(0 if b"/dev/pts/" in output and code == 5 else 1)
