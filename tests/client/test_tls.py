"""Encrypted connections, with certificates made here."""

import grpc
import pytest
from typer.testing import CliRunner

from clipserve import ServerUnavailable, Tls
from clipserve.command_line import build_app
from tests.client.fake_triton import FakeTriton

VIDEO = b"video"


def serve(start, certificates, *, ask_clients):
    pair = (certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes()
    authority = (certificates / "ca.pem").read_bytes() if ask_clients else None
    credentials = grpc.ssl_server_credentials([pair], authority, require_client_auth=ask_clients)
    return start(FakeTriton(), credentials=credentials)


def test_a_trusted_server_answers(connect, start, certificates):
    url = serve(start, certificates, ask_clients=False)
    classifier = connect(url=url, tls=Tls(root_certificates=certificates / "ca.pem"))
    assert classifier.classify(VIDEO).top.label == "archery"


@pytest.mark.parametrize("tls", [Tls(), None])
def test_an_untrusted_server_gets_no_video(connect, start, certificates, tls):
    url = serve(start, certificates, ask_clients=False)
    with pytest.raises(ServerUnavailable, match=r"tls=Tls\(\)"):
        connect(url=url, tls=tls).classify(VIDEO, timeout_seconds=5)


def test_a_client_sends_its_certificate_on_request(connect, start, certificates):
    url = serve(start, certificates, ask_clients=True)
    tls = Tls(
        root_certificates=certificates / "ca.pem",
        private_key=certificates / "client.key",
        certificate_chain=certificates / "client.pem",
    )
    assert connect(url=url, tls=tls).classify(VIDEO).top.label == "archery"
    stranger = connect(url=url, tls=Tls(root_certificates=certificates / "ca.pem"))
    with pytest.raises(ServerUnavailable):
        stranger.classify(VIDEO, timeout_seconds=5)


@pytest.fixture
def run(start, certificates, tmp_path):
    """Run a command on one video against a server that asks clients for a certificate."""
    url = serve(start, certificates, ask_clients=True)
    video = tmp_path / "archery.mp4"
    video.write_bytes(VIDEO)
    trust = ["--root-certificates", str(certificates / "ca.pem"), "--url", url]

    def run_command(command, *arguments):
        return CliRunner(env={"COLUMNS": "200"}).invoke(build_app(), [command, str(video), *trust, *arguments])

    return run_command


@pytest.mark.parametrize("command", ["classify", "embed"])
def test_a_command_sends_its_certificate(run, certificates, command, tmp_path):
    mine = ["--client-key", str(certificates / "client.key"), "--client-certificate", str(certificates / "client.pem")]
    out = ["--out", str(tmp_path / "features.npy")] if command == "embed" else []
    result = run(command, *mine, *out)
    assert result.exit_code == 0, result.stderr


def test_a_command_finds_its_certificates_in_the_environment(start, certificates, tmp_path):
    url = serve(start, certificates, ask_clients=True)
    (tmp_path / "archery.mp4").write_bytes(VIDEO)
    ask = ["classify", str(tmp_path / "archery.mp4"), "--url", url, "--timeout", "5"]
    paths = {
        "CLIPSERVE_ROOT_CERTIFICATES": str(certificates / "ca.pem"),
        "CLIPSERVE_CLIENT_KEY": str(certificates / "client.key"),
        "CLIPSERVE_CLIENT_CERTIFICATE": str(certificates / "client.pem"),
    }
    assert CliRunner(env=paths).invoke(build_app(), ask).exit_code == 0
    # As compose writes what is not set.
    assert CliRunner(env=dict.fromkeys(paths, "")).invoke(build_app(), ask).exit_code == 2


def test_a_command_without_a_certificate_is_refused(run):
    result = run("classify", "--timeout", "5")
    assert result.exit_code == 2
    assert "no server answers" in result.stderr


@pytest.mark.parametrize(
    ("given", "missing"), [("--client-key", "--client-certificate"), ("--client-certificate", "--client-key")]
)
def test_a_key_without_its_certificate_is_wrong_usage(run, certificates, given, missing):
    result = run("classify", given, str(certificates / "client.pem"))
    assert result.exit_code == 2
    assert f"Invalid value for {missing}" in result.stderr
    assert "needs its certificate" in result.stderr


def test_a_certificate_alone_encrypts(triton, certificates, tmp_path):
    """A server without TLS does not answer clients that encrypt."""
    (tmp_path / "archery.mp4").write_bytes(VIDEO)
    mine = ["--client-key", str(certificates / "client.key"), "--client-certificate", str(certificates / "client.pem")]
    ask = ["classify", str(tmp_path / "archery.mp4"), "--url", triton.url, "--timeout", "5"]
    assert CliRunner().invoke(build_app(), ask).exit_code == 0
    sent = len(triton.metadata)
    assert CliRunner().invoke(build_app(), [*ask, *mine]).exit_code == 2
    assert len(triton.metadata) == sent
