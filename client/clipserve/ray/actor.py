"""What runs in each actor of the pool: a client that classifies batches of rows, and perhaps the Triton of its node."""

import os
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic

import pyarrow as pa
import ray

from clipserve.async_classifier import AsyncVideoClassifier
from clipserve.errors import ClipserveError, InvalidRequest, ServerUnavailable
from clipserve.ray import columns, window_columns
from clipserve.ray.calls import AnyRow, Calls, SharedRun, TimelineCalls
from clipserve.ray.node_server import NodeServer, Ports, name_server
from clipserve.ray.options import AnyOptions, DatasetOptions

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Question(Generic[AnyRow, AnyOptions]):
    """What actors ask about videos.

    Attributes:
        run: the run that gets the answers.
        list_types: the columns that are added.
        add_columns: adds them to a batch.
    """

    run: type[SharedRun[AnyRow]]
    list_types: Callable[[AnyOptions], dict[str, pa.DataType]]
    add_columns: Callable[[pa.Table, Sequence[str], Sequence[Sequence[AnyRow]], str | None, AnyOptions], pa.Table]


VIDEOS = Question(Calls, columns.list_types, columns.add_columns)
WINDOWS = Question(TimelineCalls, window_columns.list_types, window_columns.add_columns)


class VideoActor(Generic[AnyRow, AnyOptions]):
    """Adds the columns of the results to batches; several threads may call it at a time."""

    def __init__(self, question: Question[AnyRow, AnyOptions], options: AnyOptions) -> None:
        self._question: Question[AnyRow, AnyOptions] = question
        self._options = options
        self._run: SharedRun[AnyRow] | None = None
        self._server: NodeServer | None = None
        self._failure: ClipserveError | None = None
        if options.embedded:
            try:
                self._server = start_node_server(options)
            except ClipserveError as error:
                # The first call raises it: of an error that an actor begins with, Ray gives the driver only the text.
                self._failure = error
                return
        url = self._server.url if self._server else options.url
        # Loopback has no TLS, and an embedded server asks for no key.
        changes: dict[str, Any] = {"url": url, "tls": None, "headers": None} if self._server else {"url": url}
        request = options.settings() | {
            "parallel": options.parallel,
            "retry_seconds": options.retry_seconds,
            "timeout_seconds": options.timeout_seconds,
        }
        self._run = question.run(partial(AsyncVideoClassifier, **options.connection(**changes)), request)

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows of `table` with their results. Raises as `SharedRun.ask` and `start_node_server`."""
        if self._failure is not None:
            raise self._failure
        assert self._run is not None
        columns.check_columns(table.column_names, self._options, self._question.list_types)
        rows = self._run.ask(columns.read_videos(table))
        ids = columns.read_ids(table)
        return self._question.add_columns(table, ids, rows, self._run.model_version, self._options)

    def __del__(self) -> None:
        # Ray deletes the object when it ends the actor. A process that is killed leaves nothing either: see NodeServer.
        if self._run is not None:
            self._run.close()
        if self._server is not None:
            self._server.close()


def start_node_server(options: DatasetOptions) -> NodeServer:
    """Start, or find, the Triton of this node for this job.

    Raises:
        InvalidRequest: this node lacks the repository, the model in it, or the server's packages.
        ServerUnavailable: Triton does not start.
    """
    context = ray.get_runtime_context()
    name = name_server(context.get_node_id(), context.get_job_id(), options.model, options.repository)
    node = f"node {ray.util.get_node_ip_address()}"
    try:
        from clipserve_server.errors import RepositoryEmpty, ServerStartError
    except ImportError as error:
        raise InvalidRequest(f"{node}: embedded=True needs pip install 'clipserve[server]' ({error})") from error
    try:
        return NodeServer(name, partial(make_triton, options))
    except RepositoryEmpty as error:
        raise InvalidRequest(f"{node}: {error}. Every node needs the same repository, at this path") from error
    except ServerStartError as error:
        raise ServerUnavailable(f"{node}: Triton does not start: {error}") from error


def make_triton(options: DatasetOptions, ports: Ports) -> Any:
    """A Triton, not started, with the model of `options` alone."""
    from clipserve_server.triton import Triton

    forget_thread_limit(os.environ)
    return Triton(
        Path(options.repository).absolute(),
        models=[options.model],
        host=LOOPBACK,
        http_port=ports["http"],
        grpc_port=ports["grpc"],
        metrics_port=ports["metrics"],
    )


def forget_thread_limit(environment: MutableMapping[str, str]) -> None:
    """Remove OMP_NUM_THREADS, which Ray sets to 1 in actors that reserve no CPU: Triton's networks use every core."""
    if environment.get("OMP_NUM_THREADS") == "1":
        del environment["OMP_NUM_THREADS"]
