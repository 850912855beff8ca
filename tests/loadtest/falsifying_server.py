"""A server that forwards every call to a Triton and falsifies scores after a number of honest answers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
INFER = "/inference.GRPCInferenceService/ModelInfer"


class Falsifier(grpc.GenericRpcHandler):
    """Forwards calls. The first `honest` answers with labels stay as they are."""

    def __init__(self, channel: Any, honest: int) -> None:
        self._channel, self._honest, self._numbers = channel, honest, count()

    def service(self, details: Any) -> Any:
        call = self._channel.unary_unary(details.method)

        def answer(request: bytes, context: Any) -> bytes:
            metadata = [(key, value) for key, value in context.invocation_metadata() if key != "user-agent"]
            try:
                given: bytes = call(request, metadata=metadata, timeout=60)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            return self._falsify(given) if details.method == INFER else given

        return grpc.unary_unary_rpc_method_handler(answer)

    def _falsify(self, given: bytes) -> bytes:
        response = service_pb2.ModelInferResponse.FromString(given)
        labelled = [output.name == "SCORES" and output.datatype == "BYTES" for output in response.outputs]
        if any(labelled) and next(self._numbers) >= self._honest:
            place = labelled.index(True)
            # Digits of a score; the length stays the same.
            response.raw_output_contents[place] = response.raw_output_contents[place].replace(b"0.0", b"0.1")
        return response.SerializeToString()


@contextmanager
def falsifying_server(url: str, *, honest: int) -> Iterator[str]:
    """Start the server; yields its host:port."""
    with grpc.insecure_channel(url, options=UNLIMITED) as channel:
        server = grpc.server(ThreadPoolExecutor(16), handlers=[Falsifier(channel, honest)], options=UNLIMITED)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
