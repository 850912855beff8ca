"""Telling a running Triton that a model has changed on disk."""

from tritonclient import grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from clipserve.connection import choose_channel_options
from clipserve_export.errors import RepositoryError
from clipserve_export.specs import ModelSpec

LOAD_SECONDS = 600.0  # TensorRT's engines take minutes


def reload_model(spec: ModelSpec, url: str) -> None:
    """Have the server at `url` (host:port of gRPC) load the network and its ensemble from the repository it serves.

    Triton loads the new beside the old, and the old answers until then; where the new does not load, the old stays.

    Raises:
        RepositoryError: nobody answers, the server does not let its repository be controlled, or it cannot load.
    """
    try:
        with triton_grpc.InferenceServerClient(url, channel_args=choose_channel_options(url)) as client:
            for name in (spec.net_name, spec.name):
                client.load_model(name, client_timeout=LOAD_SECONDS)
    except InferenceServerException as error:
        raise RepositoryError(f"{url} has not loaded {spec.name} anew: {error.message()}") from error
