"""The Triton of a node: started by the first actor there, shared by the others, ended with the actor that started it.

An abstract Unix socket elects that actor: the one which can bind the name. The kernel frees the name when its process
ends, whatever ends it, and no file is left. The others connect to it, read Triton's address, and keep the connection.
When that breaks, they elect anew; the next Triton listens on the same ports, so that calls which are retried reach it.
Triton itself ends with its actor, because a guard process watches that (`clipserve_server.guard`).
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from clipserve.errors import ServerUnavailable

JOIN_SECONDS = 360.0  # a Triton has 300 s to load its models
PORT_SECONDS = 60.0  # for the Triton before this one to leave its ports; it has 20 s for requests in flight
POLL_SECONDS = 1.0
SERVICES = ("http", "grpc", "metrics")

log = logging.getLogger(__name__)

Ports = Mapping[str, int]


class Server(Protocol):
    """What an elected actor runs: clipserve_server.triton.Triton."""

    @property
    def grpc_url(self) -> str: ...
    @property
    def http_url(self) -> str: ...
    @property
    def metrics_url(self) -> str: ...
    def find_failure(self) -> Exception | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class NodeServer:
    """This process's part in the Triton of its node.

    Args:
        name: the same in all processes that share the Triton.
        make_server: a server, not started, that listens on these ports; 0 is any free one.

    Raises:
        ServerStartError: Triton does not start.
        ServerUnavailable: the Triton of another actor did not become ready.
    """

    def __init__(self, name: str, make_server: Callable[[Ports], Server]) -> None:
        self._name = f"\0{name}"
        self._make_server = make_server
        self._ports: dict[str, int] = dict.fromkeys(SERVICES, 0)
        self._listener: socket.socket | None = None  # of the elected one
        self._leader: socket.socket | None = None  # of the others
        self._server: Server | None = None
        self._sockets: set[socket.socket] = set()  # what `close` closes
        self._closed = threading.Event()
        self._changing = threading.Lock()
        self._join()
        self._thread = threading.Thread(target=self._watch, name="clipserve node server", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """host:port for gRPC. It stays the same for as long as this object lives."""
        return f"127.0.0.1:{self._ports['grpc']}"

    @property
    def is_leader(self) -> bool:
        """Whether the Triton is this process's."""
        return self._server is not None

    def close(self) -> None:
        """Leave. Ends the Triton, if it is this process's, after the requests in flight."""
        self._closed.set()
        with self._changing:
            server, self._server = self._server, None
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)  # ends the thread's wait for it
                each.close()
        if server is not None:
            server.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _join(self) -> None:
        """Become the elected one with a running Triton, or find the address of the one that runs."""
        end = time.monotonic() + JOIN_SECONDS
        while not self._closed.is_set():
            if self._bind():
                self._start()
                return
            if self._follow(end):
                return
            if time.monotonic() > end:
                raise ServerUnavailable(f"no Triton became ready on this node within {JOIN_SECONDS:.0f} s")
            time.sleep(0.1)

    def _bind(self) -> bool:
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(self._name)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        listener.listen(128)
        if not self._keep(listener):
            return False
        self._listener = listener
        return True

    def _keep(self, opened: socket.socket) -> bool:
        """Leave a socket to `close`. False: that has been called, and so it is closed now.

        A listener that stayed open would have the name, and the others would wait for its answer.
        """
        with self._changing:
            if self._closed.is_set():
                opened.close()
                return False
            self._sockets.add(opened)
            return True

    def _drop(self, opened: socket.socket) -> None:
        with self._changing:
            self._sockets.discard(opened)
        opened.close()

    def _start(self) -> None:
        """Start a Triton; on the ports of the one before, where there was one."""
        from clipserve_server.errors import PortTaken

        end = time.monotonic() + PORT_SECONDS
        while True:
            server = self._make_server(self._ports)
            try:
                server.start()
                break
            except PortTaken:
                if time.monotonic() > end or self._closed.is_set():
                    self._resign()
                    raise
                time.sleep(POLL_SECONDS)
            except BaseException:
                self._resign()
                raise
        self._ports = {
            "http": _read_port(server.http_url),
            "grpc": _read_port(server.grpc_url),
            "metrics": _read_port(server.metrics_url.removesuffix("/metrics")),
        }
        with self._changing:
            if not self._closed.is_set():
                self._server = server
                return
        server.stop()

    def _resign(self) -> None:
        if self._listener is not None:
            self._drop(self._listener)
            self._listener = None

    def _follow(self, end: float) -> bool:
        """Ask the elected one for its ports; it answers when its Triton is ready. False: ask again, or elect anew."""
        leader = socket.socket(socket.AF_UNIX)
        if not self._keep(leader):
            return False
        try:
            leader.settimeout(max(end - time.monotonic(), 0.1))
            leader.connect(self._name)
            line = leader.makefile("rb").readline()
            leader.settimeout(None)
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            self._drop(leader)
            return False
        self._ports = json.loads(line)
        self._leader = leader
        return True

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                if self._listener is not None:
                    self._lead()
                elif self._leader is not None:
                    with contextlib.suppress(OSError):
                        self._leader.recv(1)  # nothing, when its process has ended
                    self._drop(self._leader)
                    self._leader = None
                else:
                    self._join()
            except OSError:
                if self._closed.is_set():
                    return
            except Exception:
                # Calls find no server, and fail after their retries.
                log.exception("no Triton runs on this node")
                return

    def _lead(self) -> None:
        """Answer those who ask, and start Triton again should it crash."""
        assert self._listener is not None
        self._listener.settimeout(POLL_SECONDS)
        with contextlib.suppress(TimeoutError):
            connection, _ = self._listener.accept()
            if self._keep(connection):
                connection.sendall(json.dumps(self._ports).encode() + b"\n")
        server = self._server
        if server is not None and (failure := server.find_failure()) and not self._closed.is_set():
            log.warning("%s; Triton starts again on this node", failure)
            server.stop()
            self._start()


def _read_port(address: str) -> int:
    return int(address.rpartition(":")[2])


def name_server(*parts: object) -> str:
    """A name for the server of this node: nobody else's, and the same in all actors of the job with equal `parts`.

    A hash, because the kernel allows 107 bytes.
    """
    return f"clipserve-{os.getuid()}-{hashlib.sha256(repr(parts).encode()).hexdigest()}"
