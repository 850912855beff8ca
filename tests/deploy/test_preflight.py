"""Bad settings get a clear error, and Triton is not started."""

import errno
import os
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from clipserve_container import preflight
from clipserve_container.check import find_taken_ports
from clipserve_container.memory import memory_needed, shared_memory_needed
from clipserve_container.preflight import (
    check_certificates,
    check_decoder,
    check_driver,
    check_memory,
    check_openvino,
    check_options,
    check_repository,
    check_secrets,
    check_shared_memory,
    find_problems,
)
from clipserve_container.reload import names_to_reload
from clipserve_container.repository import choose_models, names_to_load, read_models
from clipserve_container.settings import SettingError, Settings
from clipserve_export.repository import write_serving
from clipserve_export.serving.choices import Serving
from clipserve_export.specs import SPECS
from clipserve_server import repository as protobuf_reader
from clipserve_server.shared_memory import measure_room
from decode_pool.settings import available_cores
from tests.deploy.certificates import run_script
from tests.deploy.container_start import ROOT, only, run_start


def close(monkeypatch, closed):
    """Root may read everything, and the tests may run as root."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and access(path, mode))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TLS", "yes", "CLIPSERVE_TLS is 'yes', but must be one of off, server, mutual"),
        ("GPU", "1", "one of required, none"),
        ("DECODER", "gpu", "one of auto, cpu, nvdec"),
        ("EXIT_SECONDS", "soon", "whole number from 6"),
        ("DRAIN_SECONDS", "60", "Raise CLIPSERVE_EXIT_SECONDS, or lower CLIPSERVE_DRAIN_SECONDS"),
        ("VIDEO_MEGABYTES", "-1", "whole number from 1"),
        ("TRITON_OPTIONS", "--x='", "cannot be split"),
    ],
)
def test_a_setting_that_is_none_names_itself_and_what_is_allowed(name, value, says):
    with pytest.raises(SettingError, match=says):
        Settings.from_environment({f"CLIPSERVE_{name}": value})


def test_an_empty_variable_is_one_that_is_not_set():
    empty = {f"CLIPSERVE_{name.upper()}": "" for name in Settings.__dataclass_fields__}
    assert Settings.from_environment(empty) == Settings.from_environment({}) == Settings()


class TestDecoder:
    def test_that_is_demanded_and_missing_says_how_to_get_it(self):
        problem = only(check_decoder(Settings(decoder="nvdec"), ["libc.so.6", "libnvcuvid-that-is-not.so.1"]))
        assert "libnvcuvid-that-is-not.so.1" in problem
        assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in problem

    @pytest.mark.parametrize("decoder", ["auto", "cpu"])
    def test_that_is_not_demanded_may_be_missing(self, decoder):
        assert not list(check_decoder(Settings(decoder=decoder), ["libnvcuvid-that-is-not.so.1"]))


class TestRepository:
    def test_that_is_missing_is_told(self, tmp_path):
        assert "no model repository" in only(check_repository(Settings(repository=tmp_path / "none")))

    def test_that_is_empty_says_how_to_fill_it(self, tmp_path):
        assert "docker compose run --rm export" in only(check_repository(Settings(repository=tmp_path)))

    def test_with_configs_alone_counts_as_empty(self, tmp_path):
        for path in (ROOT / "model_repository").glob("*/config.pbtxt"):
            (tmp_path / path.parent.name).mkdir()
            shutil.copy(path, tmp_path / path.parent.name)
        problem = only(check_repository(Settings(repository=tmp_path)))
        assert "is empty" in problem
        assert "x3d_m" in problem

    def test_without_a_model_asked_for_says_which_there_are(self, every_model):
        problem = only(check_repository(Settings(repository=every_model, models=("x3d_xxl",))))
        assert "'x3d_xxl', but the repository has" in problem

    @pytest.mark.parametrize("path", [".", "timeline/1/model.py", "motion_net/1", "motion/config.pbtxt"])
    def test_that_this_user_cannot_read_names_what_and_for_whom(self, every_model, monkeypatch, path):
        close(monkeypatch, every_model / path)
        problem = only(check_repository(Settings(repository=every_model)))
        assert problem.startswith(f"{every_model / path} cannot be read by user {os.getuid()}: set CLIPSERVE_UID")

    def test_is_read_as_protobuf_reads_it(self):
        folder = ROOT / "model_repository"
        ours = {name: model.steps for name, model in read_models(folder).items()}
        assert ours == {name: model.steps for name, model in protobuf_reader.read_repository(folder).items()}

    def test_loads_steps_before_what_calls_them(self, every_model):
        names = names_to_load(choose_models(every_model, ("x3d_m", "motion")))
        assert names == ["decode", "x3d_m_net", "motion_net", "x3d_m", "motion"]

    def test_is_loaded_again_with_the_timelines_of_a_model(self, every_model):
        """They have a copy of its options."""
        names = names_to_reload(every_model, choose_models(every_model, ("motion",)))
        assert names == ["motion_net", "motion", "timeline"]


class TestDriver:
    def test_that_is_missing_offers_the_cpu(self, tmp_path):
        problem = only(check_driver(Settings(), tmp_path / "version"))
        assert "no NVIDIA driver" in problem
        assert "docker-compose.cpu.yml" in problem

    def test_that_is_too_old_is_told(self, tmp_path):
        (tmp_path / "version").write_text(
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version: gcc version 12.3.0\n"
        )
        assert "is 535.104.05, but" in only(check_driver(Settings(), tmp_path / "version"))

    @pytest.mark.parametrize("flavour", ["Kernel Module  580.95.05", "Open Kernel Module for x86_64  595.10"])
    def test_that_is_new_enough_passes(self, tmp_path, flavour):
        (tmp_path / "version").write_text(f"NVRM version: NVIDIA UNIX {flavour}  Release Build\n")
        assert not list(check_driver(Settings(), tmp_path / "version"))

    def test_is_not_asked_for_on_the_cpu(self, tmp_path):
        assert not list(check_driver(Settings(gpu="none"), tmp_path / "version"))


class TestCertificates:
    def test_of_the_script_pass(self, certificates):
        assert not list(check_certificates(Settings(tls="mutual", secrets=certificates.server)))

    @pytest.mark.parametrize("name", ["server.pem", "server.key", "ca.pem"])
    def test_that_are_missing_are_named(self, certificates, tmp_path, name):
        folder = shutil.copytree(certificates.server, tmp_path / "server")
        (folder / name).unlink()
        problem = only(check_certificates(Settings(tls="mutual", secrets=folder)))
        assert f"{name} is missing" in problem
        assert "make_certificates.sh" in problem

    def test_with_the_key_of_another_are_told(self, certificates, tmp_path):
        folder = shutil.copytree(certificates.server, tmp_path / "server")
        shutil.copy(certificates.root / "foreign" / "server" / "server.key", folder)
        assert "not a certificate and its key" in only(check_certificates(Settings(tls="server", secrets=folder)))

    def test_that_expired_are_told(self, certificates, tmp_path):
        folder = shutil.copytree(certificates.server, tmp_path / "server")
        for arguments in (
            ["req", "-new", "-key", "server.key", "-subj", "/CN=x", "-out", "x.csr"],
            ["x509", "-req", "-in", "x.csr", "-signkey", "server.key", "-days", "-1", "-out", "server.pem"],
        ):
            subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
        assert "expired on 20" in only(check_certificates(Settings(tls="server", secrets=folder)))

    def test_are_not_asked_for_without_tls(self, tmp_path):
        assert not list(check_certificates(Settings(secrets=tmp_path)))

    def test_the_script_refuses_a_name_that_would_change_the_certificate(self, tmp_path):
        done = run_script("--folder", str(tmp_path), "evil\nDNS:bank.example")
        assert done.returncode == 1
        assert "letters, digits" in done.stderr

    def test_the_script_adds_a_client_and_keeps_the_server_as_it_is(self, tmp_path):
        assert run_script("--folder", str(tmp_path), "--client", "alice", "gpu1.example.org").returncode == 0
        before = (tmp_path / "server/server.pem").read_bytes()
        assert run_script("--folder", str(tmp_path), "--client", "bob").returncode == 0
        assert (tmp_path / "clients/bob/client.pem").exists()
        assert (tmp_path / "server/server.pem").read_bytes() == before
        assert run_script("--folder", str(tmp_path), "gpu2.example.org").returncode == 0
        assert (tmp_path / "server/server.pem").read_bytes() != before

    def test_the_script_makes_no_other_authority_where_the_key_of_the_first_has_been_moved_away(self, tmp_path):
        assert run_script("--folder", str(tmp_path), "--client", "alice").returncode == 0
        (tmp_path / "authority/ca.key").rename(tmp_path / "elsewhere.key")
        before = (tmp_path / "server/ca.pem").read_bytes()
        done = run_script("--folder", str(tmp_path), "--client", "bob")
        assert done.returncode == 1
        assert "ca.key is not here" in done.stderr
        assert (tmp_path / "server/ca.pem").read_bytes() == before

    def test_the_script_shows_what_openssl_says(self, tmp_path):
        done = run_script("--folder", str(tmp_path), "--client", "x" * 65)
        assert done.returncode == 1
        assert "string too long" in done.stderr

    def test_the_script_keeps_keys_to_their_owner(self, certificates):
        keys = [path for path in certificates.root.rglob("*") if path.suffix == ".key" or path.name == "proxy.pem"]
        assert len(keys) == 8
        assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


@pytest.mark.parametrize(
    "key", [b"short", b"with a space in it, and long enough", b"long-enough\nbut-two-lines", bytes(range(240, 256))]
)
def test_a_key_that_cannot_travel_in_a_header_is_refused(tmp_path, key):
    (tmp_path / "admin_key").write_bytes(key)
    assert "admin_key must be" in only(check_secrets(Settings(secrets=tmp_path)))


def test_secrets_that_this_user_cannot_see_are_told_once(certificates, monkeypatch):
    close(monkeypatch, certificates.server)
    settings = Settings(tls="mutual", secrets=certificates.server)
    problem = only([*check_certificates(settings), *check_secrets(settings)])
    assert problem == f"{certificates.server} cannot be read by user {os.getuid()}: make it readable for CLIPSERVE_UID"


def test_too_little_shared_memory_says_how_much_is_needed(every_model, tmp_path):
    settings = Settings(repository=every_model, video_megabytes=2**30)
    needed = shared_memory_needed(settings)
    assert f"CLIPSERVE_SHM_SIZE={-(-needed // 2**20)}m" in only(check_shared_memory(settings, tmp_path))


def test_the_formula_of_shared_memory_is_the_stated_one(every_model):
    workers = available_cores()
    clip = 64 * 256 * 256 * 3  # that of slowfast_16x8_r101_50_50, the largest
    one = 8 * 2**20 + 2 * clip
    settings = Settings(repository=every_model, video_megabytes=8, views=2)
    assert shared_memory_needed(settings, gpus=0) == 64 * 2**20 + (64 + workers) * one
    with_nvdec = 64 * 2**20 + (64 + workers + 2 * 3 * 6) * one
    assert shared_memory_needed(settings, gpus=2) == with_nvdec
    for without in ({"decoder": "cpu"}, {"gpu": "none"}):
        assert shared_memory_needed(replace(settings, **without), gpus=2) == shared_memory_needed(settings, gpus=0)


def test_only_the_clips_of_the_served_models_count(every_model):
    settings = Settings(repository=every_model, models=("x3d_xs", "x3d_l"), video_megabytes=8)
    one = 8 * 2**20 + 16 * 356 * 356 * 3  # x3d_l's clip
    assert shared_memory_needed(settings, gpus=0) == 64 * 2**20 + (64 + available_cores()) * one


def test_the_embedded_server_has_the_same_formula(every_model):
    models = protobuf_reader.choose_models(every_model)
    for gpus in (0, 2):
        settings = Settings(repository=every_model, video_megabytes=8, views=1)
        room = measure_room(every_model, models, nvdec_gpus=gpus)
        assert room.demand.estimate() == shared_memory_needed(settings, gpus=gpus)
    without = measure_room(every_model, models, decoder="cpu", nvdec_gpus=2)
    assert without.demand.decoders == measure_room(every_model, models).demand.decoders


@pytest.mark.parametrize(
    "option",
    [
        *("--allow-metrics=false", "--metrics-port=9002", "--metrics-address=10.0.0.1", "--metrics-port 9002"),
        *("--allow-http=false", "--allow-http 0", "--http-port=9000"),
    ],
)
def test_ports_of_triton_where_nobody_would_find_them_are_told(option):
    assert option in only(check_options(Settings(triton_options=("--http-thread-count=4", *option.split()))))
    for harmless in ("--metrics-config=summary_latencies=true", "--allow-http=true", "--http-address=127.0.0.1"):
        assert not list(check_options(Settings(triton_options=(harmless,))))


@pytest.fixture
def backend(tmp_path):
    """The folder of Triton's ONNX Runtime backend, with OpenVINO."""
    folder = tmp_path / "onnxruntime"
    folder.mkdir()
    for name in ("libtriton_onnxruntime.so", "libonnxruntime_providers_openvino.so"):
        (folder / name).touch()
    return folder


class TestOpenVino:
    def test_that_is_there_for_a_cpu_passes(self, every_model, backend):
        assert not list(check_openvino(Settings(repository=every_model, gpu="none", release="26.09"), backend))

    def test_that_the_runtime_was_built_without_names_the_models_and_the_remedy(self, every_model, backend):
        (backend / "libonnxruntime_providers_openvino.so").unlink()
        settings = Settings(repository=every_model, gpu="none", models=("x3d_m", "motion"))
        problem = only(check_openvino(settings, backend))
        assert "was built without it here" in problem
        assert problem.endswith("export --configs x3d_m motion --cpu-accelerator none")

    @pytest.mark.parametrize("release", ["25.03", "25.04"])
    def test_of_a_release_that_cannot_take_it_is_told(self, every_model, backend, release):
        settings = Settings(repository=every_model, gpu="none", models=("motion",), release=release)
        assert f"1.21.0 of release {release}" in only(check_openvino(settings, backend))

    def test_is_nothing_for_a_gpu(self, every_model, backend):
        problem = only(check_openvino(Settings(repository=every_model, models=("motion",)), backend))
        assert "beside the GPU" in problem
        assert "--cpu-accelerator none" in problem

    def test_that_no_config_asks_for_is_not_looked_for(self, every_model, backend, tmp_path):
        (backend / "libonnxruntime_providers_openvino.so").unlink()
        repository = shutil.copytree(every_model, tmp_path / "models")
        write_serving(repository, SPECS["motion"], Serving(cpu_accelerator="none"))
        for gpu in ("none", "required"):
            assert not list(check_openvino(Settings(repository=repository, gpu=gpu, models=("motion",)), backend))

    def test_is_not_asked_of_another_runtime_under_the_same_name(self, every_model, backend):
        for path in backend.iterdir():
            path.unlink()
        assert not list(check_openvino(Settings(repository=every_model), backend))


class TestMemory:
    """On a CPU a run takes the server's memory, and OpenVINO inside ONNX Runtime keeps it."""

    def test_that_is_too_little_for_the_largest_runs_says_how_to_make_them_smaller(
        self, every_model, backend, tmp_path
    ):
        (tmp_path / "memory.max").write_text(f"{8 * 2**30}\n")
        settings = Settings(repository=every_model, gpu="none", models=("motion", "x3d_m"))
        problem = only(check_memory(settings, tmp_path, backend))
        assert "has 8192 MiB" in problem
        assert "4 videos of 30 clips in x3d_m_net" in problem
        assert "export --configs x3d_m --max-batch 1 --max-clips" in problem

    def test_is_enough_where_the_configs_allow_smaller_runs(self, every_model, backend, tmp_path):
        (tmp_path / "memory.max").write_text(f"{8 * 2**30}\n")
        repository = shutil.copytree(every_model, tmp_path / "models")
        write_serving(repository, SPECS["x3d_m"], Serving(max_batch=1, max_clips=10))
        settings = Settings(repository=repository, gpu="none", models=("motion", "x3d_m"))
        assert not list(check_memory(settings, tmp_path, backend))

    def test_that_is_too_little_is_told_where_no_config_says_what_a_clip_takes(self, every_model, backend, tmp_path):
        (tmp_path / "memory.max").write_text(f"{2**30}\n")
        repository = shutil.copytree(every_model, tmp_path / "models")
        config = repository / "motion_net" / "config.pbtxt"
        config.write_text(config.read_text().replace("clip_megabytes", "another"))
        problem = only(check_memory(Settings(repository=repository, gpu="none", models=("motion",)), tmp_path, backend))
        assert problem.startswith("this container has 1024 MiB of memory, but the server takes ")
        assert problem.endswith("raise CLIPSERVE_MEMORY")

    def test_is_checked_ahead_of_the_start(self, every_model, monkeypatch):
        monkeypatch.setattr(preflight, "check_memory", lambda settings: iter(["too little memory"]))
        assert "too little memory" in find_problems(Settings(repository=every_model, gpu="none"), in_server=False)

    def test_counts_every_shape_where_the_release_keeps_a_copy_of_each(self, every_model):
        def needed(release):
            return memory_needed(Settings(repository=every_model, gpu="none", models=("motion",), release=release))

        assert needed("25.08") == needed("26.09")
        assert needed("25.07") - needed("25.08") == SPECS["motion"].clip_megabytes * (36 * 465 - 8 * 30)

    def test_is_the_gpus_where_there_is_one(self, every_model, backend, tmp_path):
        (tmp_path / "memory.max").write_text(f"{2**30}\n")
        assert not list(check_memory(Settings(repository=every_model), tmp_path, backend))


def test_a_port_that_is_taken_names_the_variable_to_change():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        problem = only(find_taken_ports({"CLIPSERVE_PORT": port, "CLIPSERVE_METRICS_PORT": "0"}))
    assert f"127.0.0.1:{port} cannot be used for gRPC" in problem
    assert "CLIPSERVE_PORT" in problem


def test_a_port_that_only_root_may_open_is_none_that_is_taken(monkeypatch):
    def refuse(claim, address):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert not list(find_taken_ports({"CLIPSERVE_PORT": "443"}))


@pytest.mark.parametrize("module", ["start", "check"])
def test_nothing_starts_when_something_is_wrong_and_all_of_it_is_told(module, tmp_path, every_model):
    done = run_start(module, tmp_path, REPOSITORY=tmp_path / "none", GPU="none", TLS="server")
    assert done.returncode == 1
    assert "no model repository" in done.stderr
    assert "server.pem is missing" in done.stderr
    assert not (tmp_path / "started").exists()


def test_the_server_starts_with_a_key_of_its_own_that_nobody_else_can_read(tmp_path, every_model):
    done = run_start("start", tmp_path, REPOSITORY=every_model, GPU="none", MODELS="motion", VIDEO_MEGABYTES=1)
    assert done.returncode == 0, done.stderr
    key = tmp_path / "state" / "admin_key"
    assert key.stat().st_mode & 0o777 == 0o600
    started = (tmp_path / "started").read_text()
    assert f"--grpc-restricted-protocol=model-repository,shared-memory,statistics,trace,logging:clipserve-admin={key.read_text()}" in started  # fmt: skip  # noqa: E501
    assert "--load-model=decode --load-model=motion_net --load-model=motion " in started


def test_a_good_machine_has_no_problem(every_model, tmp_path, certificates):
    settings = Settings(
        repository=every_model, gpu="none", tls="mutual", secrets=certificates.server, state=tmp_path / "state"
    )
    assert find_problems(settings) == []
