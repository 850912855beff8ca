"""Several servers behind one classifier: calls are balanced, and no failure that another server lacks gets through."""

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc.service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from typer.testing import CliRunner

from clipserve import (
    AccessDenied,
    InvalidRequest,
    RequestCancelled,
    ServerBusy,
    ServerFailed,
    ServerUnavailable,
    Tls,
    UnknownModel,
    VideoClassifier,
)
from clipserve.command_line import build_app
from clipserve.connection import Connection
from clipserve.errors import ModelNotReady
from clipserve.fleet.fleet import MOST_FAILURES, Fleet
from clipserve.fleet.members import Members
from clipserve.fleet.targets import DnsName, Target
from clipserve.transport import Transport
from tests.client.fake_triton import FakeModel, FakeTriton
from tests.watching import HANG_SECONDS, NEVER_SECONDS, at_once, wait_for

VIDEO = b"video"
BUSY = (grpc.StatusCode.UNAVAILABLE, "[busy] many videos are waiting")


@pytest.fixture
def fleet(start):
    """Three running servers."""
    tritons = [FakeTriton() for _ in range(3)]
    for triton in tritons:
        start(triton)
    return tritons


def urls(tritons):
    return [triton.url for triton in tritons]


def shares(tritons):
    return [len(triton.requests) for triton in tritons]


def check_even(counts):
    """The load of equal members is even within 20 %."""
    mean = sum(counts) / len(counts)
    assert all(abs(count - mean) <= 0.2 * mean for count in counts), counts


# ---- the choice --------------------------------------------------------------------------------------------


def test_equal_members_get_equal_shares(connect, fleet):
    for triton in fleet:
        triton.delay = 0.02
    rows = list(connect(url=urls(fleet)).classify_many([VIDEO] * 150, parallel=9))
    assert all(row.prediction for row in rows)
    check_even(shares(fleet))


def test_calls_one_after_the_other_go_round(connect, fleet):
    classifier = connect(url=urls(fleet))
    for _ in range(9):
        classifier.classify(VIDEO)
    assert shares(fleet) == [3, 3, 3]


def test_a_slow_member_gets_fewer_calls(connect, fleet):
    for triton, delay in zip(fleet, (0.2, 0.01, 0.01), strict=True):
        triton.delay = delay
    rows = list(connect(url=urls(fleet)).classify_many([VIDEO] * 120, parallel=6))
    assert all(row.prediction for row in rows)
    slow, *others = shares(fleet)
    assert slow < 0.3 * min(others)
    check_even(others)


def test_clients_with_the_same_list_begin_at_different_members():
    targets = [Target(f"server{number}:8001") for number in range(3)]
    first = Counter(Members(targets).pick().target for _ in range(300))
    assert min(first.values()) > 50


def test_the_member_with_the_fewest_calls_is_next():
    members = Members([Target(name) for name in "abc"])
    held = [members.pick() for _ in range(6)]
    assert Counter(member.in_flight for member in members.present) == {2: 3}
    freed = held[4]
    members.release(freed)
    assert members.pick() is freed


# ---- members that fail -------------------------------------------------------------------------------------


def test_a_member_that_was_never_there_costs_no_failure(connect, fleet, free_port):
    for triton in fleet:
        triton.delay = 0.02
    classifier = connect(url=[f"localhost:{free_port}", *urls(fleet)])
    with at_once():
        rows = list(classifier.classify_many([VIDEO] * 90, timeout_seconds=NEVER_SECONDS))
    assert all(row.prediction for row in rows)
    check_even(shares(fleet))


def test_one_call_without_retry_goes_to_another_member(connect, triton, free_port):
    classifier = connect(url=[f"localhost:{free_port}", triton.url])
    for _ in range(4):
        assert classifier.classify(VIDEO).top.label == "archery"


def test_a_fleet_that_is_not_there_is_reported_at_once(connect, free_port):
    classifier = connect(url=[f"localhost:{free_port}", f"127.0.0.1:{free_port}", f"127.0.0.2:{free_port}"])
    with (
        at_once(),
        pytest.raises(ServerUnavailable, match=rf"no server answers at (localhost|127.0.0.[12]):{free_port}"),
    ):
        classifier.classify(VIDEO, timeout_seconds=NEVER_SECONDS)


def test_a_busy_member_is_left_alone_for_a_while(connect, fleet):
    fleet[0].failure = BUSY
    for triton in fleet:
        triton.delay = 0.01
    rows = list(connect(url=urls(fleet)).classify_many([VIDEO] * 100, parallel=6))
    assert all(row.prediction for row in rows)
    # It refuses at once, so it always has the fewest calls in flight.
    assert len(fleet[0].requests) < 25


@pytest.mark.parametrize(
    "failure",
    [
        (grpc.StatusCode.INTERNAL, "the network has a defect"),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),  # a gRPC server that is no Triton
        (grpc.StatusCode.PERMISSION_DENIED, "another key"),
        (grpc.StatusCode.UNAVAILABLE, "This protocol is restricted, expecting header 'triton-grpc-protocol-key'"),
    ],
    ids=lambda failure: failure[0].name,
)
def test_a_member_that_fails_costs_no_failure_and_gets_few_calls(connect, fleet, failure):
    fleet[0].failure = failure
    for triton in fleet:
        triton.delay = 0.01
    classifier = connect(url=urls(fleet))
    assert [classifier.classify(VIDEO).top.label for _ in range(4)] == ["archery"] * 4  # without retries
    rows = list(classifier.classify_many([VIDEO] * 100, parallel=6))
    assert all(row.prediction for row in rows)
    # It fails at once, so it always has the fewest calls in flight.
    assert len(fleet[0].requests) < 25


@pytest.mark.parametrize(
    ("failure", "error"),
    [((grpc.StatusCode.INTERNAL, "no"), ServerFailed), ((grpc.StatusCode.PERMISSION_DENIED, "no"), AccessDenied)],
)
def test_a_failure_that_all_members_have_is_reported_after_each_was_asked_once(connect, fleet, failure, error):
    for triton in fleet:
        triton.failure = failure
    classifier = connect(url=urls(fleet))
    for calls in (1, 2):
        with at_once(), pytest.raises(error):
            classifier.classify(VIDEO, retry=True, timeout_seconds=NEVER_SECONDS)
        assert shares(fleet) == [calls] * 3


def test_a_request_that_fails_anywhere_is_not_sent_to_every_member(connect, fleet, start):
    more = [FakeTriton() for _ in range(3)]
    for triton in more:
        start(triton)
    for triton in (*fleet, *more):
        triton.failures_by_content[VIDEO] = (grpc.StatusCode.INTERNAL, "out of memory")
    classifier = connect(url=urls([*fleet, *more]))
    with pytest.raises(ServerFailed):
        classifier.classify(VIDEO)
    assert sum(shares([*fleet, *more])) == MOST_FAILURES
    assert classifier.classify(b"another video").top.label == "archery"


def test_a_fleet_that_is_busy_is_busy(connect, fleet, free_port):
    for triton in fleet:
        triton.failure = BUSY
    with pytest.raises(ServerBusy):
        connect(url=[*urls(fleet), f"localhost:{free_port}"]).classify(VIDEO)
    assert shares(fleet) == [1, 1, 1]


def test_a_call_is_tried_again_until_some_member_has_room(connect, fleet):
    for triton in fleet:
        triton.failures_left = 2
    assert connect(url=urls(fleet)).classify(VIDEO, retry=True).top.label == "archery"


def test_a_member_without_the_model_is_left_out(connect, fleet):
    del fleet[0].models["x3d_m"]
    fleet[1].models["x3d_m"] = FakeModel(ready=False)
    rows = list(connect(url=urls(fleet)).classify_many([VIDEO] * 30, parallel=3))
    assert all(row.prediction for row in rows)
    assert len(fleet[0].requests) <= 3
    assert len(fleet[2].requests) == 30


def test_a_model_that_no_member_has_is_unknown(connect, fleet):
    with pytest.raises(UnknownModel, match="it has mvit_base_16x4, x3d_m"):
        connect("slow_r50", url=urls(fleet)).classify(VIDEO)
    for triton in fleet:
        triton.models["x3d_m"] = FakeModel(ready=False)
    with pytest.raises(ModelNotReady):
        connect(url=urls(fleet)).classify(VIDEO)


def test_a_failure_of_the_video_is_final(connect, fleet):
    for triton in fleet:
        triton.failure = (grpc.StatusCode.INVALID_ARGUMENT, "[not-a-video] no")
    (row,) = connect(url=urls(fleet)).classify_many([VIDEO])
    assert row.error.code == "not-a-video"
    assert sum(shares(fleet)) == 1


def test_a_member_that_comes_back_gets_calls_again(connect, triton, start, free_port):
    classifier = connect(url=[triton.url, f"localhost:{free_port}"])
    for _ in range(4):
        classifier.classify(VIDEO)
    late = FakeTriton()
    start(late, port=free_port)

    def is_used():
        classifier.classify(VIDEO)
        return late.requests

    assert wait_for(is_used)
    before = shares([triton, late])
    for _ in range(10):
        classifier.classify(VIDEO)
    assert [now - then for now, then in zip(shares([triton, late]), before, strict=True)] == [5, 5]


def test_a_drained_member_finishes_its_calls_and_gets_no_others(connect, fleet):
    """As Triton drains: it unloads its models, and answers what it has."""
    draining = fleet[0]
    draining.hold = True
    classifier = connect(url=urls(fleet))
    stream = classifier.classify_many([VIDEO] * 40, parallel=3, ordered=False)
    rows = [next(iter(stream))]
    draining.wait_for_calls(1)
    draining.models["x3d_m"] = FakeModel(ready=False)
    sent = len(draining.requests)
    time.sleep(1.0)  # the watcher asks after 0.4 s
    rows += [next(stream) for _ in range(30)]
    assert len(draining.requests) == sent
    draining.models["x3d_m"] = FakeModel()
    draining.release.set()
    draining.hold = False
    rows += list(stream)
    assert len(rows) == 40
    assert all(row.prediction for row in rows)


# ---- a member that is stopped ------------------------------------------------------------------------------


@pytest.fixture
def deaf():
    """The address of a server that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"localhost:{listener.getsockname()[1]}"


@pytest.fixture
def stuck(start):
    """A server that takes calls and answers none."""
    triton = FakeTriton(hold=True, stuck={"ModelReady"})
    start(triton)
    return triton


def test_calls_of_a_member_that_answers_nothing_go_to_another_one(connect, fleet, deaf, stuck):
    """As of a process that SIGSTOP stopped, or a machine that is cut off."""
    classifier = connect(url=[deaf, stuck.url, *urls(fleet)])
    with at_once():
        rows = list(classifier.classify_many([VIDEO] * 40, parallel=4, timeout_seconds=NEVER_SECONDS))
    assert all(row.prediction for row in rows)
    # One call waited for it, for two or three seconds; all others went elsewhere.
    assert len(stuck.requests) == 1


def test_the_calls_of_the_last_member_are_never_cut(connect, triton, free_port):
    """A server that answers nothing for long may yet answer, and there is no other one."""
    triton.stuck = {"ModelReady"}
    triton.delay = 4.0
    classifier = connect(url=[triton.url, f"localhost:{free_port}"])
    assert classifier.classify(VIDEO).top.label == "archery"
    assert len(triton.requests) == 1


# ---- names with many addresses -----------------------------------------------------------------------------


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


def test_a_new_address_becomes_a_member_and_an_old_one_ceases_to_be_one(connect, pods, name_server):
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


# ---- how a fleet is given ----------------------------------------------------------------------------------


def test_addresses_are_a_list_or_separated_by_commas(fleet):
    for given in (urls(fleet), tuple(urls(fleet)), ",".join(urls(fleet)), ", ".join(urls(fleet))):
        with VideoClassifier(url=given) as classifier:
            assert repr(classifier) == f"VideoClassifier('x3d_m', {','.join(urls(fleet))!r})"
            assert classifier.models() == ["mvit_base_16x4", "x3d_m"]


@pytest.mark.parametrize(
    "url",
    [
        *("", [], ["a:1", ""], "a:1,,b:1", ["http://a:1"], [1], {"a:1": 1}, b"a:1", "a:1,u:p@b:1"),
        # Without a port, or with one that does not exist.
        *("a", "a:", "a:0", "a:65536", "a:99999", "a:x", "a:1,b", "[::1]", "::1", "::1:8001", "[::1:8001", ":8001"),
        *("dns:///a", "dns:///a:99999", "dns:a", "dns:///a/b:1"),
        # Several, with something else between them.
        *("a:1 b:1", "a:1;b:1", "a:1/b"),
    ],
)
def test_a_wrong_address_is_refused(url):
    with pytest.raises(InvalidRequest, match="url must be host:port"):
        VideoClassifier(url=url)


def test_one_address_needs_no_watcher(triton):
    before = {*threading.enumerate()}  # watchers of other tests may be ending
    fleet = Fleet(Connection("x3d_m", triton.url))
    assert fleet.is_single
    with VideoClassifier(url=[triton.url]) as classifier:
        classifier.classify(VIDEO)
        new = {*threading.enumerate()} - before
        assert "clipserve-fleet" not in {thread.name for thread in new}
        assert len(new) <= 1  # gRPC's own
    assert triton.times_asked("ModelReady") == 0


def test_the_commands_take_several_addresses(fleet, tmp_path):
    (tmp_path / "a.mp4").write_bytes(VIDEO)
    ask = ["classify", str(tmp_path / "a.mp4"), "--json"]
    for environment, given in (({}, ["--url", ",".join(urls(fleet))]), ({"CLIPSERVE_URL": ",".join(urls(fleet))}, [])):
        assert CliRunner(env=environment).invoke(build_app(), [*ask, *given]).exit_code == 0
    wrong = CliRunner(env={"COLUMNS": "200"}).invoke(build_app(), [*ask, "--url", "a:1,http://b:1"])
    assert wrong.exit_code == 2
    assert "url must be host:port" in wrong.stderr
    assert "http://b:1" in wrong.stderr


def test_credentials_go_to_every_member(connect, fleet):
    classifier = connect(url=urls(fleet), headers={"authorization": "Bearer secret"})
    for _ in range(3):
        classifier.classify(VIDEO)
    for triton in fleet:
        assert triton.metadata[0][1]["authorization"] == "Bearer secret"


def test_one_ready_member_is_enough_to_begin(connect, triton, start, free_port):
    loading = FakeTriton(models={"x3d_m": FakeModel(ready=False)})
    start(loading)
    with at_once():
        connect(url=[loading.url, f"localhost:{free_port}", triton.url]).wait_until_ready(timeout_seconds=NEVER_SECONDS)


def test_waiting_ends_when_a_member_comes_up(connect, start, free_port):
    loading = FakeTriton(models={"x3d_m": FakeModel(ready=False)})
    start(loading)
    classifier = connect(url=[loading.url, f"localhost:{free_port}"])
    threading.Timer(1.0, lambda: start(FakeTriton(), port=free_port)).start()
    with at_once():
        classifier.wait_until_ready(timeout_seconds=NEVER_SECONDS)


# ---- a stream holds its member -----------------------------------------------------------------------------


def test_a_stream_keeps_its_member_and_counts_as_a_call(fleet):
    transport = Transport(Connection("x3d_m", ",".join(urls(fleet))))
    with transport.fleet.open_route() as route:
        client = transport.open_client(route.member)
        assert client.is_model_ready("x3d_m")
        assert transport.open_client(route.member) is client
        held = route.member
        others = {transport.fleet.members.pick() for _ in range(2)}
        assert held not in others
    assert held.in_flight == 0
    transport.close()


# ---- ends --------------------------------------------------------------------------------------------------


def test_closing_ends_calls_and_the_watcher(fleet):
    for triton in fleet:
        triton.hold = True
    classifier = VideoClassifier(url=urls(fleet))
    stream = classifier.classify_many([VIDEO] * 9, parallel=9)

    def take():
        with pytest.raises(RequestCancelled):
            list(stream)

    taking = threading.Thread(target=take)
    taking.start()
    for triton in fleet:
        triton.wait_for_calls(3)
    with at_once():
        classifier.close()
        taking.join()
    assert wait_for(lambda: not any(thread.name == "clipserve-fleet" for thread in threading.enumerate()))


def test_a_classifier_that_nobody_closed_leaves_no_watcher(fleet, free_port):
    classifier = VideoClassifier(url=[*urls(fleet), f"localhost:{free_port}"])
    for _ in range(4):
        classifier.classify(VIDEO)
    assert any(thread.name == "clipserve-fleet" for thread in threading.enumerate())
    del classifier
    assert wait_for(lambda: not any(thread.name == "clipserve-fleet" for thread in threading.enumerate()))


def test_many_threads_begin_with_one_look_up(pods, name_server):
    """All of them wait for the name server, and none goes on without it."""
    port, tritons = pods
    name_server += ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    with VideoClassifier(url=f"dns:///fleet.test:{port}") as classifier, ThreadPoolExecutor(24) as pool:
        assert all(pool.map(lambda _: classifier.classify(VIDEO).top, range(48)))
    assert min(shares(tritons)) > 5
