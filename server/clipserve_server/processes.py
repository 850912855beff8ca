"""The processes that Triton starts, as the kernel lists them."""

from pathlib import Path

_STUB = "triton_python_b"  # the kernel keeps 15 letters of a name


def dead_stubs(guard: int) -> set[int]:
    """Ids of the stubs of Triton's Python backend that died and that nobody has asked after, of the Triton that the
    process `guard` runs.

    Triton 2.51 waits for ever for the first word of a stub; one that dies before has to be noticed from outside.
    """
    parents: dict[int, int] = {}
    dead = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            process, _, rest = path.read_text(errors="replace").partition(" (")
        except OSError:
            continue
        name, _, fields = rest.rpartition(") ")
        state, parent = fields.split()[:2]
        parents[int(process)] = int(parent)
        if state == "Z" and name == _STUB:
            dead.add(int(process))
    return {process for process in dead if parents.get(parents[process]) == guard}
