"""What keeps a server from starting is named: a port, a host, a model, its config, the decoder, the log."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from clipserve_export.repository import write_configs
from clipserve_server.errors import ModelLoadError, PortTaken, RepositoryEmpty, ServerStartError
from clipserve_server.options import Decoder
from clipserve_server.triton import Triton
from tests.conftest import NEEDS
from tests.motion_repository import ANY_PORTS
from tests.watching import processes_naming


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--repository", "absent"), "there is no model repository absent: name one (--repository), or make it"),
        (("--repository", "."), "has no models: export some with"),
        (("x3d_q",), "no model 'x3d_q'; it has"),
        (("x3d_m",), "x3d_m is not exported yet: clipserve export x3d_m"),
    ],
)
def test_a_repository_without_what_is_asked_for_is_one_clear_line(
    arguments: tuple[str, ...], said: str, exported: Path, tmp_path: Path
) -> None:
    given = arguments if "--repository" in arguments else (*arguments, "--repository", str(exported))
    run = subprocess.run(
        [sys.executable, "-m", "clipserve", "serve", *given], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert said in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("service", ["http", "grpc", "metrics"])
def test_a_taken_port_is_named_before_anything_starts(service: str, exported: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port} .*--{service}-port"):
            Triton(exported, **{**ANY_PORTS, f"{service}_port": port}).start()


def test_every_taken_port_is_named_at_once(exported: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"http_port": one.getsockname()[1], "grpc_port": 0, "metrics_port": other.getsockname()[1]}
        with pytest.raises(PortTaken, match=r"--http-port(.|\n)*--metrics-port"):
            Triton(exported, **ports).start()


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("300.1.1.1", "name"),
        ("203.0.113.1", "cannot assign requested address"),
        ("ä" * 64, "hostname"),
    ],
)
def test_a_host_that_is_no_address_of_this_machine_is_named(host: str, reason: str, exported: Path) -> None:
    with pytest.raises(ServerStartError, match=rf"'{host}' is no address of this machine .*{reason}.*--host"):
        Triton(exported, host=host, **ANY_PORTS).start()


def test_a_model_that_does_not_load_is_named_with_the_reason(repository: Path, tmp_path: Path) -> None:
    (repository / "motion_net" / "1" / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ModelLoadError, match=r"motion_net does not load: .+") as raised:
        Triton(repository, log=tmp_path / "triton.log", **ANY_PORTS).start()
    assert "\n" not in str(raised.value)
    assert processes_naming(str(repository)) == []


def test_a_start_that_takes_too_long_ends_with_the_end_of_the_log(exported: Path) -> None:
    with pytest.raises(
        ServerStartError, match=r"^motion, timeline did not become ready within 0 s: .*\S.* \(log: "
    ) as raised:
        Triton(exported, **ANY_PORTS, start_seconds=0.0).start()
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(NEEDS["nvdec"](), reason="this machine has what must be missing")
def test_a_decoder_that_this_machine_lacks_is_named_with_what_is_missing(exported: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"decode does not load: .*decoder is nvdec, but .*PyNvVideoCodec"):
        Triton(exported, **ANY_PORTS, decoder=Decoder.NVDEC).start()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('value: "CLIP"', 'value: "CLOP"'), "motion does not load: .*'CLIP', is not connected"),
        (("dims: 12", "dims: 13"), "motion does not load: .*inconsistent shape"),
    ],
)
def test_a_config_that_triton_refuses_ends_the_start_with_its_reason(
    repository: Path, change: tuple[str, str], said: str, tmp_path: Path
) -> None:
    path = repository / "motion" / "config.pbtxt"
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(ModelLoadError, match=said):
        Triton(repository, log=tmp_path / "triton.log", **ANY_PORTS).start()


def test_a_repository_with_nothing_exported_says_how_to(tmp_path: Path) -> None:
    write_configs(tmp_path)
    with pytest.raises(RepositoryEmpty, match="clipserve export NAME"):
        Triton(tmp_path, **ANY_PORTS).start()


@pytest.mark.long
def test_why_an_earlier_start_failed_is_not_why_this_one_does(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text("failed to load 'x3d_m' version 1: Internal: of an earlier start\n")
    (repository / "motion_net" / "1" / "model.onnx").write_bytes(b"no network")
    with pytest.raises(ModelLoadError, match="motion_net does not load"):
        Triton(repository, log=path, **ANY_PORTS).start()


def test_a_log_that_cannot_be_written_is_named_before_anything_starts(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match=r"the log .*/absent/triton.log cannot be written: No such file"):
        Triton(exported, log=tmp_path / "absent" / "triton.log", **ANY_PORTS).start()
