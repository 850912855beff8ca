"""`clipserve demo`."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from clipserve.command_line import build_app
from clipserve.showcase import open_showcase
from tests.interrupts import interruptible

DEMO = [sys.executable, "-m", "clipserve", "demo", "--no-open", "--port", "0"]
NO_SERVER = "127.0.0.1:9"  # the port of the discard service, which does not run here


def run_demo(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(build_app(), ["demo", "--no-open", "--port", "0", *arguments])


def test_without_a_server_it_says_how_to_start_one() -> None:
    done = run_demo("--url", NO_SERVER)
    assert done.exit_code == 2
    assert f"no server answers at {NO_SERVER}" in done.stderr
    assert "clipserve demo --serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_videos_is_refused(motion_url: str, tmp_path: Path) -> None:
    done = run_demo("--url", motion_url, "--samples", str(tmp_path))
    assert done.exit_code == 2
    assert "has no video" in done.stderr


def test_a_sample_that_cannot_be_read_is_named(motion_url: str, tmp_path: Path) -> None:
    (tmp_path / "locked.mp4").symlink_to("/proc/self/mem")  # as a file of another user; root may read those
    done = run_demo("--url", motion_url, "--samples", str(tmp_path))
    assert done.exit_code == 2
    assert "locked.mp4': Input/output error" in done.stderr


def test_a_sample_that_the_page_cannot_name_is_named(motion_url: str, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")).touch()
    done = run_demo("--url", motion_url, "--samples", str(tmp_path))
    assert done.exit_code == 2
    assert r"caf\\xe9.mp4' is not UTF-8: rename it" in done.stderr


def test_an_address_that_is_not_of_this_machine_gets_a_sentence(motion_url: str, sample_folder: Path) -> None:
    done = run_demo("--url", motion_url, "--samples", str(sample_folder), "--host", "192.0.2.1")
    assert done.exit_code == 2
    assert "the page cannot be served at 192.0.2.1:0" in done.stderr
    assert "Choose another --host or --port" in done.stderr


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_the_page_is_at_an_address_of_ipv6(motion_url: str, sample_folder: Path, host: str) -> None:
    with open_showcase(motion_url, samples=sample_folder, host=host, port=0) as showcase:
        assert showcase.address.startswith("http://[::1]:")


def test_a_model_that_the_server_lacks_is_refused_with_those_it_has(motion_url: str) -> None:
    done = run_demo("--url", motion_url, "--model", "x3d_q")
    assert done.exit_code == 2
    assert "the server has no model 'x3d_q'; it has motion" in done.stderr


def test_a_server_that_does_not_list_its_models_wants_a_key_or_a_model_s_name(restricted_url: str) -> None:
    done = run_demo("--url", restricted_url)
    assert done.exit_code == 2
    assert "--header 'triton-grpc-protocol-admin-key: KEY'" in done.stderr
    assert "Give --model NAME: then the page does not need the list of models" in done.stderr


def test_an_empty_repository_cannot_be_served(tmp_path: Path) -> None:
    done = run_demo("--serve", "--repository", str(tmp_path))
    assert done.exit_code == 2
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_cannot_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPSERVE_CPU_PRECISION", "int8")
    done = run_demo("--serve", "--repository", str(tmp_path))
    assert done.exit_code == 2
    assert "must be one of auto, fp32, bf16, got 'int8'" in done.stderr


def test_the_page_is_up_until_ctrl_c(motion_url: str, sample_folder: Path) -> None:
    command = [*DEMO, "--url", motion_url, "--samples", str(sample_folder)]
    with subprocess.Popen(
        interruptible(command), stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
    ) as demo:
        assert demo.stdout is not None
        line = demo.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line
        with urllib.request.urlopen(address[0], timeout=30) as page:
            assert b"clipserve" in page.read()
        demo.send_signal(signal.SIGINT)
        assert demo.stdout.read().endswith("stopped\n")
    assert demo.returncode == 0
