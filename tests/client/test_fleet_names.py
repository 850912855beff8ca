"""A name with many addresses: each is a member, and a name server says which there are."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc.service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

from clipserve import ServerUnavailable, Tls, VideoClassifier
from clipserve.connection import Connection
from clipserve.fleet import watcher
from clipserve.fleet.fleet import Fleet
from clipserve.fleet.targets import DnsName, Target
from tests.client.fake_triton import FakeTriton, check_even, shares
from tests.watching import HANG_SECONDS, NEVER_SECONDS, at_once, wait_for

VIDEO = b"video"


@pytest.fixture
def name_server(monkeypatch):
    """Addresses of the name fleet.test; [] for none."""
    real = socket.getaddrinfo
    addresses = []

    def look_up(host, port, *arguments, **options):
        if host != "fleet.test":
            return real(host, port, *arguments, **options)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return addresses


@pytest.fixture
def pods():
    """Three servers on one port of different addresses, as pods have it."""
    tritons, servers, port = [], [], 0
    for number in range(1, 4):
        triton = FakeTriton()
        server = grpc.server(ThreadPoolExecutor(8))
        add_GRPCInferenceServiceServicer_to_server(triton, server)
        port = server.add_insecure_port(f"127.0.0.{number}:{port}")
        server.start()
        triton.url = f"127.0.0.{number}:{port}"
        tritons.append(triton)
        servers.append(server)
    yield port, tritons
    for triton, server in zip(tritons, servers, strict=True):
        triton.release.set()
        server.stop(None).wait(HANG_SECONDS)


def test_every_address_of_a_name_is_a_member(connect, pods, name_server):
    port, tritons = pods
    name_server += ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    for triton in tritons:
        triton.delay = 0.02
    rows = list(connect(url=f"dns:///fleet.test:{port}").classify_many([VIDEO] * 120, parallel=6))
    assert all(row.prediction for row in rows)
    check_even(shares(tritons))


def test_a_new_address_becomes_a_member_and_an_old_one_ceases_to_be_one(connect, pods, name_server, monkeypatch):
    monkeypatch.setattr(watcher, "LOOK_UP_SECONDS", 0.5)
    port, tritons = pods
    name_server += ["127.0.0.1", "127.0.0.2"]
    classifier = connect(url=f"dns:///fleet.test:{port}")
    for _ in range(4):
        classifier.classify(VIDEO)
    assert shares(tritons) == [2, 2, 0]
    name_server[:] = ["127.0.0.2", "127.0.0.3"]

    def is_new():
        before = shares(tritons)
        for _ in range(2):
            classifier.classify(VIDEO)
        return [now - then for now, then in zip(shares(tritons), before, strict=True)] == [0, 1, 1]

    assert wait_for(is_new)
    name_server.clear()  # the name server is away: the members stay
    time.sleep(0.2)
    classifier.classify(VIDEO)


def test_a_name_that_is_not_found_keeps_its_members_though_another_one_is_found(pods):
    port, _ = pods
    names = "dns:///one.test:8001,dns:///two.test:8001"
    fleet = Fleet(Connection("x3d_m", names))
    one, two = ([Target(f"127.0.0.{number}:{port}")] for number in (1, 2))
    fleet.take_names([one, two])
    fleet.take_names([one, []])
    assert {member.target for member in fleet.members.present} == {*one, *two}
    fleet.take_names([one, one])  # both names for one server
    assert [member.target for member in fleet.members.present] == one
    fleet.close()


def test_a_name_without_an_address_is_an_error_that_says_so(connect, name_server):
    with at_once(), pytest.raises(ServerUnavailable, match=r"fleet\.test"):
        connect(url="dns:///fleet.test:8001").classify(VIDEO, timeout_seconds=NEVER_SECONDS)


def test_a_certificate_is_about_the_name(connect, start, certificates):
    """The certificate says localhost, and the connection goes to 127.0.0.1."""
    pair = (certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes()
    triton = FakeTriton()
    start(triton, credentials=grpc.ssl_server_credentials([pair]))
    port = triton.url.partition(":")[2]
    classifier = connect(url=f"dns:///localhost:{port}", tls=Tls(root_certificates=certificates / "ca.pem"))
    assert classifier.classify(VIDEO).top.label == "archery"
    with pytest.raises(ServerUnavailable):
        connect(url=f"127.0.0.1:{port}", tls=Tls(certificates / "ca.pem")).classify(VIDEO, timeout_seconds=5)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("dns:///gpu.example:8001", "gpu.example", 8001),
        ("dns:gpu.example:8001", "gpu.example", 8001),
        ("DNS:///gpu.example:8001", "gpu.example", 8001),
        ("dns:///[::1]:8001", "::1", 8001),
    ],
)
def test_a_name_is_read_as_grpc_reads_it(url, host, port):
    assert DnsName.parse(url) == DnsName(url, host, port)


def test_an_address_of_ipv6_keeps_its_brackets():
    """Certificates and proxies are about the name, which has them, too."""
    assert DnsName("dns:///[::1]:8001", "::1", 8001).look_up() == [Target("[::1]:8001", "[::1]:8001")]


@pytest.mark.parametrize("url", ["gpu1:8001", "dns://8.8.8.8/gpu.example:8001", "unix:/run/triton.sock", "[::1]:8001"])
def test_the_address_of_one_server_is_no_name(url):
    assert DnsName.parse(url) is None


def test_many_threads_begin_with_one_look_up(pods, name_server):
    """All of them wait for the name server, and none goes on without it."""
    port, tritons = pods
    name_server += ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    with VideoClassifier(url=f"dns:///fleet.test:{port}") as classifier, ThreadPoolExecutor(24) as pool:
        assert all(pool.map(lambda _: classifier.classify(VIDEO).top, range(48)))
    assert min(shares(tritons)) > 5
