"""What runs in each actor of the pool: a client that classifies batches of rows, and perhaps the Triton of its node."""

import os
from collections.abc import MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from clipserve.async_classifier import AsyncVideoClassifier
from clipserve.ray.calls import Calls
from clipserve.ray.columns import add_columns, check_columns, read_ids, read_videos
from clipserve.ray.node_server import NodeServer, Ports, name_server
from clipserve.ray.options import DatasetOptions

LOOPBACK = "127.0.0.1"


class ClassifyActor:
    """Adds the columns of the results to batches; several threads may call it at a time."""

    def __init__(self, options: DatasetOptions) -> None:
        self._options = options
        self._calls: Calls | None = None
        self._server: NodeServer | None = None
        if options.embedded:
            self._server = start_node_server(options)
        url = self._server.url if self._server else options.url
        # Loopback has no TLS, and an embedded server asks for no key.
        changes: dict[str, Any] = {"url": url, "tls": None, "headers": None} if self._server else {"url": url}
        request = options.settings() | {
            "parallel": options.parallel,
            "retry_seconds": options.retry_seconds,
            "timeout_seconds": options.timeout_seconds,
        }
        self._calls = Calls(partial(AsyncVideoClassifier, **options.connection(**changes)), request)

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows of `table` with their results. Raises as `Calls.classify`."""
        assert self._calls is not None
        check_columns(table.column_names, self._options)
        ids = read_ids(table)
        rows = self._calls.classify(read_videos(table))
        return add_columns(table, ids, rows, self._calls.model_version, self._options)

    def __del__(self) -> None:
        # Ray deletes the object when it ends the actor. A process that is killed leaves nothing either: see NodeServer.
        if self._calls is not None:
            self._calls.close()
        if self._server is not None:
            self._server.close()


def start_node_server(options: DatasetOptions) -> NodeServer:
    """Start, or find, the Triton of this node for this job. Raises ServerStartError."""
    context = ray.get_runtime_context()
    name = name_server(context.get_node_id(), context.get_job_id(), options.model, options.repository)
    return NodeServer(name, partial(make_triton, options))


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
