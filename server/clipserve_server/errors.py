"""Why a server does not start.

ServerStartError
├── PortTaken         another program listens on a port
├── RepositoryEmpty   the repository has no model to serve, or not the one that was named
├── ModelLoadError    Triton could not load a model
└── UnstableStart     another start may succeed
    ├── StartCrashed  Triton crashed
    └── StartStuck    nothing happens any more
"""


class ServerStartError(Exception):
    """Triton does not run. The message is one line: why, and what to do."""


class PortTaken(ServerStartError):
    """Another program listens on a port that Triton needs."""


class RepositoryEmpty(ServerStartError):
    """The repository has no model to serve, or not the one that was named."""


class ModelLoadError(ServerStartError):
    """Triton could not load a model."""


class UnstableStart(ServerStartError):
    """Triton did not become ready for a reason that another start may not meet."""


class StartCrashed(UnstableStart):
    """Triton crashed as it started."""


class StartStuck(UnstableStart):
    """Triton's processes wait for each other."""
