"""What a server can start with is said at its start, and does not keep it from starting."""

import json
import shutil

import pytest

from clipserve_container.memory import count_gpus
from clipserve_container.notices import check_expiry, check_gpu_memory, check_targets, find_notices, read_gpu_megabytes
from clipserve_container.repository import choose_models
from clipserve_container.settings import Settings
from clipserve_export.repository import write_serving
from clipserve_export.serving.choices import Serving
from clipserve_export.specs import SPECS
from clipserve_host.gpu_devices import available_gpus
from decode_pool.settings import PoolSettings
from tests.deploy.certificates import run_script
from tests.deploy.container_start import ROOT, only, run_start


@pytest.fixture
def repository(every_model, tmp_path):
    """`motion` and x3d_m for GPUs."""
    folder = shutil.copytree(every_model, tmp_path / "models")
    for name in ("motion", "x3d_m"):
        write_serving(folder, SPECS[name], Serving(target="gpu", gpu_gigabytes=20))
        record(folder, name, target="gpu", precision="fp16", layout="contiguous")
    return folder


def record(repository, name, **facts):
    (repository / f"{name}_net" / "1" / "export.json").write_text(json.dumps(facts))


def notices(check, settings, *read):
    return list(check(settings, choose_models(settings.repository, settings.models), *read))


class TestTarget:
    def test_another_than_the_servers_is_told_with_the_remedy(self, repository):
        said = only(notices(check_targets, Settings(repository=repository, gpu="none", models=("motion",))))
        assert "motion_net version 1 was exported for a GPU and runs on a CPU, slowly" in said
        assert said.endswith("docker compose run --rm export motion --target cpu")
        record(repository, "motion", target="cpu", precision="fp32", layout="channels_last_3d")
        said = only(notices(check_targets, Settings(repository=repository, models=("motion", "x3d_m"))))
        assert said.endswith("docker compose run --rm export motion --target gpu")

    def test_that_fits_or_is_not_known_says_nothing(self, repository, every_model):
        assert not notices(check_targets, Settings(repository=repository, models=("motion", "x3d_m")))
        assert not notices(check_targets, Settings(repository=every_model, gpu="none"))

    @pytest.mark.parametrize("module", ["start", "check"])
    def test_is_said_by_a_server_that_starts_all_the_same(self, repository, tmp_path, module):
        done = run_start(module, tmp_path, REPOSITORY=repository, GPU="none", MODELS="motion", VIDEO_MEGABYTES=1)
        assert "was exported for a GPU and runs on a CPU" in done.stderr
        assert (tmp_path / "started").exists() == (module == "start")


class TestCertificate:
    @pytest.mark.parametrize(("days", "notices"), [(29, 1), (31, 0)])
    def test_that_expires_soon_is_told(self, tmp_path, days, notices):
        assert run_script("--folder", str(tmp_path), "--days", str(days)).returncode == 0
        said = list(check_expiry(Settings(tls="server", secrets=tmp_path / "server")))
        assert len(said) == notices
        assert all("server.pem expires on 20" in notice for notice in said)
        assert not list(check_expiry(Settings(secrets=tmp_path / "server")))


class TestGpuMemory:
    def test_that_networks_and_nvdec_exceed_is_told_with_what_fits(self, repository):
        settings = Settings(repository=repository, models=("motion", "x3d_m"))
        said = only(notices(check_gpu_memory, settings, lambda: [81559, 40960]))
        # 2 x 20 GiB, 600 MiB of Triton, and 3 x (640 + 2048) MiB of NVDEC
        assert said.startswith("GPU 1 has 40960 MiB, but the largest runs of motion, x3d_m may take 40960 MiB there")
        assert "NVDEC 8064 MiB, and Triton 600 MiB" in said
        assert "export --configs motion --gpu-memory 15" in said

    def test_counts_no_nvdec_where_the_cpu_decodes(self, repository):
        settings = Settings(repository=repository, models=("motion",), decoder="cpu")
        assert not notices(check_gpu_memory, settings, lambda: [20 * 1024 + 600])
        assert notices(check_gpu_memory, settings, lambda: [20 * 1024 + 599])

    def test_counts_a_network_only_where_it_runs(self, repository):
        write_serving(repository, SPECS["x3d_m"], Serving(target="gpu", gpu_gigabytes=20, gpus=(1,)))
        settings = Settings(repository=repository, models=("motion", "x3d_m"))
        said = only(notices(check_gpu_memory, settings, lambda: [30 * 1024, 30 * 1024]))
        assert said.startswith("GPU 1 has")

    def test_too_small_for_any_share_says_to_serve_fewer(self, repository):
        settings = Settings(repository=repository, models=("motion", "x3d_m"))
        assert "serve fewer models" in only(notices(check_gpu_memory, settings, lambda: [16384]))

    def test_is_asked_of_nvidia_smi(self, tmp_path, monkeypatch):
        command = tmp_path / "nvidia-smi"
        monkeypatch.setenv("PATH", str(tmp_path))
        assert read_gpu_megabytes() == []
        for prints, found in (("81559\n81559", [81559, 81559]), ("[N/A]", []), ("No devices were found", [])):
            command.write_text(f"#!/bin/sh\necho '{prints}'\n")
            command.chmod(0o755)
            assert read_gpu_megabytes() == found

    def test_of_a_server_without_a_gpu_is_nothing(self, repository):
        assert not notices(check_gpu_memory, Settings(repository=repository, gpu="none"), lambda: [1])


def test_a_repository_that_cannot_be_read_is_left_to_the_other_checks(tmp_path):
    assert find_notices(Settings(repository=tmp_path)) == []


def test_the_formulas_have_the_defaults_of_the_decode_pool():
    pool = PoolSettings()
    chart = (ROOT / "deploy/helm/clipserve/templates/_memory.tpl").read_text()
    assert f"mul {pool.nvdec_processes * pool.nvdec_streams} .Values.resources.gpus" in chart


def test_gpus_are_counted_by_their_devices(tmp_path, monkeypatch):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert available_gpus(tmp_path) == 2
    for named, count in (("", 0), ("-1", 0), ("1", 1), ("0,1", 2), ("GPU-5,GPU-6,GPU-7", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert available_gpus(tmp_path) == count


def test_the_container_that_only_checks_counts_those_of_the_host(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert count_gpus(tmp_path) == 2
