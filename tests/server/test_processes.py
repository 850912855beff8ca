"""Which of Triton's processes is a stub that has died."""

import subprocess
import sys

from clipserve_host.processes import processes_of

# A server that leads a group. Its first stub has died, its second one runs and has a child that has died. Nobody has
# waited for the dead.
GUARD = """
import ctypes, os, signal

def fork(run, *, dies):
    if not (pid := os.fork()):
        run()
        os._exit(0)
    if dies:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid

def serve():
    os.setpgid(0, 0)
    dead = fork(rename, dies=True)
    fork(lambda: stay(dead), dies=False)
    signal.pause()

def rename():
    assert ctypes.CDLL(None).prctl(15, b"triton_python_backend_stub") == 0  # PR_SET_NAME

def stay(dead):
    rename()
    child = fork(lambda: None, dies=True)
    print(dead, child, flush=True)
    signal.pause()

server = fork(serve, dies=False)
input()
os.killpg(server, signal.SIGKILL)
"""


def test_a_dead_child_of_a_stub_is_no_dead_stub() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GUARD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as guard:
        assert guard.stdout is not None
        dead, child = map(int, guard.stdout.readline().split())
        found = {process.pid: process for process in processes_of(guard.pid)}
        guard.communicate("\n")
    assert found[child].state == found[dead].state == "Z"
    assert [process.pid for process in found.values() if process.is_dead_stub] == [dead]
    assert len(found) == 4
