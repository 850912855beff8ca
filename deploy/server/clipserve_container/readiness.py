"""Whether every model is ready; each is asked for by name.

The server's own flag does not tell: it stays "ready" when the process of a Python model has died. Before 26.01 the
model's flag does so, too. So this module also looks for those processes.
"""

from __future__ import annotations

from pathlib import Path

from clipserve_container.local_http import find_problem

SECONDS = 5.0
# The process that Triton starts for each instance of a Python model; its first argument is the model's file.
STUB = "triton_python_backend_stub"


class Readiness:
    """Checks the models of one Triton.

    url: its HTTP port. names: the models that should be ready. repository: the path that Triton was given.
    has_been_live: whether some check has got an answer of Triton, which has then started.
    has_been_ready: whether some check has found every model ready.
    """

    def __init__(self, url: str, names: list[str], repository: Path, *, processes: Path = Path("/proc")) -> None:
        self._url, self._names, self._repository, self._processes = url, names, repository, processes
        self._stubs: set[str] = set()
        self.has_been_live = self.has_been_ready = False

    def check(self) -> dict[str, str]:
        """Why each model is not ready, by name; empty for one that is ready."""
        # A Triton that hangs would take SECONDS for each model.
        if problem := find_problem(f"{self._url}/v2/health/live", timeout=SECONDS):
            return dict.fromkeys(self._names, problem)
        self.has_been_live = True
        models = {name: find_problem(f"{self._url}/v2/models/{name}/ready", timeout=SECONDS) for name in self._names}
        alive = find_stubs(self._repository, self._processes)
        for name in self._stubs - alive:
            models[name] = "its process died"
        if not any(models.values()):
            # Which models have a process depends on their backends, so it is learnt while all are ready.
            self._stubs = alive & set(self._names)
            self.has_been_ready = True
        return models


def find_stubs(repository: Path, processes: Path = Path("/proc")) -> set[str]:
    """The models whose Python process lives."""
    models = set()
    for process in processes.glob("[0-9]*"):
        try:
            # A command line may have any bytes.
            program, *arguments = (process / "cmdline").read_text(errors="replace").split("\0")
        except OSError:
            continue  # the process has ended
        # A dead process that nobody has waited for has an empty command line.
        if Path(program).name == STUB and arguments and arguments[0].startswith(f"{repository}/"):
            models.add(Path(arguments[0]).relative_to(repository).parts[0])
    return models
