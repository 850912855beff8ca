"""Proxies of the environment: never used within this machine, and named where they may be at fault."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clipserve import DownloadLimits, ServerUnavailable, VideoClassifier, VideoNotReadable
from clipserve.cancellation import Cancellation
from clipserve.proxies import GRPC_PROXIES, except_loopback, find_proxy, is_local, is_loopback, read_host
from clipserve.sources.downloads import download


@pytest.fixture
def proxy():
    """A proxy that answers no request, and counts them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        visits = []

        def serve():
            while True:
                try:
                    visitor, _ = listener.accept()
                except OSError:
                    return
                visits.append(visitor)
                visitor.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", visits
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def set_proxies(monkeypatch, proxy):
    """Set every variable in which a library looks for a proxy, and no exceptions."""
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in (*GRPC_PROXIES, "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy[0])


@pytest.mark.usefixtures("set_proxies")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "ipv4:127.0.0.1", "dns:///localhost"])
def test_a_server_on_this_machine_is_reached_without_a_proxy(connect, triton, proxy, host):
    port = triton.url.rpartition(":")[2]
    assert connect(url=f"{host}:{port}").classify(b"video").top.label == "archery"
    assert not proxy[1]


@pytest.fixture
def address():
    """The address of a server on this machine that answers "video" to every request."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"video")

        def log_message(self, *_): ...

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/a.mp4"
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("set_proxies")
def test_an_address_of_this_machine_is_fetched_without_a_proxy(proxy, address):
    assert download(address, DownloadLimits(), Cancellation()) == b"video"
    assert not proxy[1]


@pytest.mark.usefixtures("set_proxies")
@pytest.mark.parametrize("variable", GRPC_PROXIES)
def test_an_error_about_another_machine_names_the_variable(monkeypatch, proxy, variable):
    for name in GRPC_PROXIES:
        if name != variable:
            monkeypatch.delenv(name)
    classifier = VideoClassifier("x3d_m", "video.example.org:8001", timeout_seconds=30)
    with classifier, pytest.raises(ServerUnavailable) as caught:
        classifier.classify(b"video")
    assert f"the environment variable {variable} names" in str(caught.value)
    assert "list video.example.org in no_proxy" in str(caught.value)
    assert proxy[0] not in str(caught.value), "it may hold a password"
    assert proxy[1]


def fail_to_fetch(address):
    with pytest.raises(VideoNotReadable) as caught:
        download(address, DownloadLimits(), Cancellation())
    return str(caught.value)


@pytest.mark.usefixtures("set_proxies")
@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"])
def test_a_download_that_a_proxy_may_have_stopped_names_the_variable_and_not_its_value(monkeypatch, proxy, variable):
    scheme = variable.lower().removesuffix("_proxy")
    if variable.isupper():
        monkeypatch.delenv(variable.lower())
    monkeypatch.setenv(variable, proxy[0].replace("//", "//user:p4ss@"))
    said = fail_to_fetch(f"{scheme}://example.invalid/y.mp4")
    assert f"the environment variable {variable} names" in said
    assert "list example.invalid in no_proxy" in said
    assert "p4ss" not in said
    assert proxy[1]
    monkeypatch.setenv("no_proxy", "example.invalid")
    assert "proxy" not in fail_to_fetch(f"{scheme}://example.invalid/y.mp4")


@pytest.mark.usefixtures("set_proxies")
@pytest.mark.parametrize(
    "value", ["http://user:s3c/ret@host:1", "http:/user:s3cret@host", "user:s3cret@host:port", "s3c ret:1"]
)
def test_a_variable_that_names_no_proxy_is_named_and_its_value_not_shown(monkeypatch, value):
    monkeypatch.setenv("http_proxy", value)
    said = fail_to_fetch("http://example.invalid/y.mp4")
    assert "the proxy's address is not valid" in said
    assert "the environment variable http_proxy names" in said
    assert "s3c" not in said


def test_all_proxy_which_is_not_used_is_not_named(monkeypatch, proxy):
    for name in (*GRPC_PROXIES, "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy[0])
    assert "proxy" not in fail_to_fetch("https://example.invalid/y.mp4").lower()
    assert not proxy[1]


@pytest.mark.usefixtures("set_proxies")
def test_the_container_reaches_itself_without_a_proxy(proxy, address):
    program = f"from clipserve_container.local_http import find_problem as f; assert f({address!r}, timeout=5) == ''"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "deploy" / "server")}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
    assert not proxy[1]


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.9.1", "127.1"),
        *("::1", "[::1]", "::ffff:127.0.0.1", "0.0.0.0", "::"),
    ],
)
def test_names_and_addresses_of_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example.org", "notlocalhost", "10.0.0.1", "2001:db8::1", "video", ""])
def test_names_and_addresses_of_other_machines(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("video.example.org:8001", "video.example.org"),
        ("video.example.org", "video.example.org"),
        ("[2001:db8::1]:8001", "2001:db8::1"),
        ("dns://8.8.8.8/video.example.org:8001", "video.example.org"),
        ("ipv6:[2001:db8::1]:8001", "2001:db8::1"),
    ],
)
def test_the_host_of_a_grpc_target(url, host):
    assert read_host(url) == host
    assert not is_local(url)


def test_unix_sockets_are_on_this_machine():
    assert is_local("unix:/run/triton.sock")
    assert is_local("unix-abstract:triton")


@pytest.mark.parametrize(
    ("exceptions", "found"),
    [
        ("", "http_proxy"),
        ("example.com", "http_proxy"),
        ("example.com, Example.org", None),
        ("video.example.org", None),
    ],
)
def test_hosts_in_no_proxy_are_reached_without_a_proxy(exceptions, found):
    environment = {"http_proxy": "http://proxy:3128", "no_proxy": exceptions}
    assert find_proxy("video.example.org:8001", environment) == found
    assert find_proxy("10.1.2.3:8001", {**environment, "no_proxy": "10.0.0.0/8"}) is None


def test_exceptions_are_added_to_those_there_are():
    assert except_loopback({})["no_proxy"].startswith("localhost,127.0.0.1")
    assert except_loopback({"NO_PROXY": "a"})["no_proxy"].startswith("a,localhost")
    assert except_loopback({"no_grpc_proxy": "b"})["no_grpc_proxy"].startswith("b,localhost")
