"""Several servers behind one classifier: how they are given, and how calls are balanced."""

import threading
from collections import Counter

import pytest
from typer.testing import CliRunner

from clipserve import InvalidRequest, RequestCancelled, VideoClassifier
from clipserve.command_line import build_app
from clipserve.connection import Connection
from clipserve.fleet.fleet import Fleet
from clipserve.fleet.members import Members
from clipserve.fleet.targets import Target
from clipserve.transport import Transport
from tests.client.fake_triton import FakeModel, FakeTriton, check_even, shares, urls
from tests.watching import NEVER_SECONDS, at_once, wait_for

VIDEO = b"video"


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
