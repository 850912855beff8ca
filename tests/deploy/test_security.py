"""What a client without keys can do to a real Triton that runs with the container's command line."""

import urllib.error
import urllib.request

import pytest
from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from clipserve import ServerUnavailable, Tls, VideoClassifier
from clipserve.command_line import build_app
from clipserve.errors import ClipserveError
from tests.watching import HANG_SECONDS

ADMIN = {"triton-grpc-protocol-clipserve-admin": "the-key-of-the-operator"}
ADMIN_CALLS = {
    "unload a model": lambda client, **how: client.unload_model("motion_net", **how),
    "load a model": lambda client, **how: client.load_model("motion", **how),
    "list the repository": lambda client, **how: client.get_model_repository_index(**how),
    "map shared memory": lambda client, **how: client.register_system_shared_memory("x", "/any", 64, **how),
    "list shared memory": lambda client, **how: client.get_system_shared_memory_status(**how),
    "change the log": lambda client, **how: client.update_log_settings({"log_verbose_level": 1}, **how),
    "change tracing": lambda client, **how: client.update_trace_settings(settings={"trace_rate": "1"}, **how),
    "read statistics": lambda client, **how: client.get_inference_statistics(**how),
}


@pytest.fixture(scope="module")
def plain(start_server):
    """Without TLS."""
    return start_server()


@pytest.fixture(scope="module")
def mutual(start_server, certificates):
    """Asks clients for a certificate and an API key."""
    return start_server(tls="mutual", secrets=certificates.server, api_key="the-key-of-the-client")


@pytest.mark.parametrize("call", ADMIN_CALLS.values(), ids=ADMIN_CALLS)
def test_without_the_admin_key_nobody_rules_the_server(plain, call):
    with triton_grpc.InferenceServerClient(plain.grpc_url) as client:
        with pytest.raises(InferenceServerException, match="restricted"):
            call(client)
        with pytest.raises(InferenceServerException, match="restricted"):
            call(client, headers={"triton-grpc-protocol-clipserve-admin": "a guess"})


def test_with_the_admin_key_a_model_is_loaded(plain):
    with triton_grpc.InferenceServerClient(plain.grpc_url) as client:
        client.load_model("motion", headers=ADMIN)
        assert client.is_model_ready("motion")


@pytest.mark.parametrize(
    "path", ["repository/models/motion/unload", "repository/index", "logging", "systemsharedmemory/region/x/register"]
)
def test_http_refuses_the_same_without_the_key(plain, path):
    request = urllib.request.Request(f"{plain.http_url}/v2/{path}", data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=HANG_SECONDS)
    with refused.value as answer:
        assert answer.code == 403
    assert plain.is_ready()


def test_everybody_may_classify_and_ask_for_readiness(plain, bouncing):
    with VideoClassifier("motion", plain.grpc_url) as classifier:
        classifier.wait_until_ready(timeout_seconds=HANG_SECONDS)
        assert classifier.classify(bouncing).top.label == "bouncing"


def test_a_client_with_certificate_and_key_is_served(mutual, certificates, bouncing):
    headers = {"triton-grpc-protocol-clipserve-api": "the-key-of-the-client"}
    with VideoClassifier("motion", mutual.grpc_url, tls=certificates.client(), headers=headers) as classifier:
        assert classifier.classify(bouncing).top.label == "bouncing"


def test_a_client_without_the_api_key_is_refused(mutual, certificates, bouncing):
    classifier = VideoClassifier("motion", mutual.grpc_url, tls=certificates.client())
    with classifier, pytest.raises(ClipserveError, match="restricted"):
        classifier.classify(bouncing)


def test_the_operator_reloads_a_model_with_certificate_and_keys(mutual, certificates, onnx_repository, tmp_path):
    def reload(*options):
        words = ["versions", "motion", "--reload", mutual.grpc_url, "--repository", onnx_repository, *options]
        result = CliRunner().invoke(build_app(), [str(word) for word in words])
        return result.exit_code, " ".join(result.output.split())

    key_file = tmp_path / "admin_key"
    key_file.write_text(f"{mutual.admin_key}\n")
    alice = certificates.client()
    tls = ("--root-certificates", alice.root_certificates)
    tls += ("--client-key", alice.private_key, "--client-certificate", alice.certificate_chain)
    api_key = ("--header", f"triton-grpc-protocol-clipserve-api:{mutual.api_key}")
    status, said = reload(*tls, *api_key, "--key-file", key_file)
    assert status == 0, said
    assert f"{mutual.grpc_url} has reloaded motion" in said
    status, said = reload(*tls, *api_key)
    assert status == 1
    assert "restricted" in said
    assert "--key-file names the file with the admin key" in said
    status, said = reload(*api_key, "--key-file", key_file)
    assert status == 1
    assert "could not reload motion" in said
    status, said = reload(*tls, "--key-file", tmp_path / "no_such_key")
    assert status == 2
    assert "cannot read --key-file" in said


@pytest.mark.parametrize("who", ["a stranger without a certificate", "a client of another authority", "no TLS"])
def test_whoever_cannot_show_our_certificate_gets_no_connection(mutual, certificates, bouncing, who):
    tls = {
        "a stranger without a certificate": Tls(certificates.server / "ca.pem"),
        "a client of another authority": certificates.client("foreign"),
        "no TLS": None,
    }[who]
    with VideoClassifier("motion", mutual.grpc_url, tls=tls) as classifier, pytest.raises(ServerUnavailable):
        classifier.classify(bouncing, timeout_seconds=HANG_SECONDS)


def test_a_client_does_not_trust_a_server_of_another_authority(mutual, certificates, bouncing):
    tls = Tls(certificates.root / "foreign" / "server" / "ca.pem")
    with VideoClassifier("motion", mutual.grpc_url, tls=tls) as classifier, pytest.raises(ServerUnavailable):
        classifier.classify(bouncing, timeout_seconds=HANG_SECONDS)
