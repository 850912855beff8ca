"""What keeps a server from starting.

ServerStartError
├── PortTaken         something else listens where Triton was to listen
├── RepositoryEmpty   there is nothing to serve, or not what was asked for
└── ModelLoadError    Triton could not load a model
"""


class ServerStartError(Exception):
    """Triton does not run. The message is one line that says why and what to do."""


class PortTaken(ServerStartError):
    """Something else listens where Triton was to listen."""


class RepositoryEmpty(ServerStartError):
    """There is nothing to serve, or not what was asked for."""


class ModelLoadError(ServerStartError):
    """Triton could not load a model."""
