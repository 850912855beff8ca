"""Who runs the Triton of a node: an election among actors, here with a server that only listens."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest

from clipserve.ray.node_server import NodeServer, Ports, name_server
from clipserve_server.errors import PortTaken, ServerStartError
from tests.watching import at_once, wait_for

HOLD = """
import sys, time
from tests.ray_data.test_node_server import Listener
from clipserve.ray.node_server import NodeServer
server = NodeServer(sys.argv[1], Listener)
print(server.url, flush=True)
time.sleep(1000)
"""


class Listener:
    """Listens on its port for gRPC, and has the interface of Triton."""

    def __init__(self, ports: Ports) -> None:
        self._port = ports["grpc"]
        self._socket: socket.socket | None = None

    def start(self) -> None:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(("127.0.0.1", self._port))
        except OSError as error:
            made.close()
            raise PortTaken(str(error)) from error
        made.listen()
        self._socket, self._port = made, made.getsockname()[1]

    def stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    die = stop

    def find_failure(self) -> Exception | None:
        return None if self._socket else RuntimeError("it has died")

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def http_url(self) -> str:
        return "127.0.0.1:1"

    @property
    def metrics_url(self) -> str:
        return "http://127.0.0.1:2/metrics"


def answers(url: str) -> bool:
    """Whether somebody listens there."""
    host, _, port = url.partition(":")
    with suppress(OSError):
        socket.create_connection((host, int(port)), 1).close()
        return True
    return False


@pytest.fixture
def name() -> str:
    return name_server(os.getpid(), time.monotonic())


@pytest.fixture
def join(name: str) -> Iterator[Callable[[], NodeServer]]:
    """Another actor's part."""
    made: list[NodeServer] = []

    def join() -> NodeServer:
        made.append(NodeServer(name, Listener))
        return made[-1]

    yield join
    for server in made:
        server.close()


def test_actors_of_a_node_share_what_the_first_has_started(join: Callable[[], NodeServer]) -> None:
    first, second, third = join(), join(), join()
    assert [server.is_leader for server in (first, second, third)] == [True, False, False]
    assert first.url == second.url == third.url
    assert answers(first.url)


def test_jobs_have_servers_of_their_own(join: Callable[[], NodeServer]) -> None:
    other = NodeServer(name_server("another job"), Listener)
    try:
        assert other.is_leader
        assert other.url != join().url
    finally:
        other.close()


def test_when_the_first_leaves_another_serves_at_the_same_address(join: Callable[[], NodeServer]) -> None:
    first, second, third = join(), join(), join()
    first.close()
    assert wait_for(lambda: second.is_leader or third.is_leader)
    assert wait_for(lambda: answers(second.url))
    assert not (second.is_leader and third.is_leader)
    assert first.url == second.url == third.url == join().url


def test_one_that_is_closed_as_it_is_elected_leaves_the_name_to_others(name: str) -> None:
    first, second = NodeServer(name, Listener), NodeServer(name, Listener)
    closing = threading.Thread(target=second.close)
    bind = second._bind

    def bind_late() -> bool:
        closing.start()
        assert wait_for(lambda: second._closed.is_set() and not second._changing.locked())
        return bind()

    second._bind = bind_late  # type: ignore[method-assign]
    first.close()
    assert wait_for(lambda: second._closed.is_set())
    closing.join()
    with at_once():
        third = NodeServer(name, Listener)
    assert third.is_leader
    third.close()


def test_one_that_waits_for_an_answer_can_be_closed(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as leader:
        leader.bind(f"\0{name}")
        leader.listen()

        def answer() -> None:
            connection, _ = leader.accept()
            connection.sendall(b'{"http": 1, "grpc": 2, "metrics": 3}\n')
            connection.close()  # as if it ended

        answering = threading.Thread(target=answer)
        answering.start()
        follower = NodeServer(name, Listener)
        answering.join()
        connection, _ = leader.accept()  # it asks again, and gets no answer
        with connection, at_once():
            follower.close()


def test_a_server_that_ends_by_itself_is_started_again(name: str) -> None:
    made: list[Listener] = []

    def make(ports: Ports) -> Listener:
        made.append(Listener(ports))
        return made[-1]

    server = NodeServer(name, make)
    try:
        made[0].die()
        assert wait_for(lambda: answers(server.url))
        assert len(made) == 2
    finally:
        server.close()
    assert not answers(server.url)


def test_a_server_that_does_not_start_is_the_error_of_its_actor(name: str, join: Callable[[], NodeServer]) -> None:
    class Broken(Listener):
        def start(self) -> None:
            raise ServerStartError("no model to serve")

    with pytest.raises(ServerStartError, match="no model to serve"):
        NodeServer(name, Broken)
    assert join().is_leader  # the name is free


@pytest.mark.long  # another process imports Ray
def test_a_killed_actor_leaves_its_place_to_another(name: str, join: Callable[[], NodeServer]) -> None:
    command = [sys.executable, "-c", HOLD, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        url = holder.stdout.readline().strip()
        follower = join()
        assert (follower.url, follower.is_leader) == (url, False)
        holder.send_signal(signal.SIGKILL)
    assert wait_for(lambda: follower.is_leader)
    assert answers(url)


def test_names_fit_into_the_kernel_and_tell_jobs_apart() -> None:
    names = {name_server("n" * 56, "01000000", model, "/a/long/path" * 30) for model in ("motion", "x3d_m")}
    assert len(names) == 2
    assert max(map(len, names)) < 107
    assert partial(name_server, 1, 2)() == name_server(1, 2)
