"""Ctrl-C in the middle of `clipserve timeline`: one line at most, and what was written stays."""

import json
import signal
import subprocess
import sys

import pytest

from tests.interrupts import interruptible
from tests.watching import HANG_SECONDS, wait_for

PROGRAM = "from clipserve.command_line import main; main()"


@pytest.mark.parametrize("out", [None, "windows.jsonl", "timeline.csv", "match.vtt"])
@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.long)])
def test_ctrl_c_ends_the_command_and_the_work_of_the_server(server, tmp_path, out, count):
    server.windows, server.hold_after = 60, 10
    if out == "match.vtt" and count > 1:
        out = "labels.json"
    videos = [tmp_path / f"{number}.mp4" for number in range(count)]
    for path in videos:
        path.write_bytes(path.name.encode())
    output = ["--out", str(tmp_path / out)] if out else ["--json"]
    command = [sys.executable, "-c", PROGRAM, "timeline", *map(str, videos), *output, "--parallel", "2"]
    command += ["--url", server.url, "--model", "x3d_m"]
    journal = tmp_path / (out if out in ("windows.jsonl", "timeline.csv") else f"{out}.windows.jsonl")
    working = min(count, 2)
    process = subprocess.Popen(
        interruptible(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert wait_for(lambda: server.running == working and server.sent == 30 * working)
        if out:
            assert wait_for(lambda: journal.exists() and journal.read_text().count("\n") >= 30 * working)
        else:
            shown = [json.loads(process.stdout.readline()) for _ in range(30 * working)]
            assert sorted(line["window"] for line in shown) == sorted([*range(30)] * working)
        process.send_signal(signal.SIGINT)
        assert wait_for(lambda: server.running == 0), "the server works on"
        stdout, stderr = process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, stderr
    assert not stdout
    if not out:
        assert not stderr
        return
    assert stderr == f"{tmp_path / out}: {30 * working} windows; the same command continues from here\n"
    server.hold_after = None
    server.release.set()
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    assert f"{60 * count} windows, {60 * count - 30 * working} of them new, 0 videos failed" in done.stderr
    assert server.sent == 60 * count + working, "only the last windows, to compare them, were made twice"
