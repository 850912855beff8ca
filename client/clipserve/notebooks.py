"""Whether this code runs in a notebook."""

import sys
from typing import Any


def in_notebook() -> bool:
    """Whether there is a kernel of Jupyter, or one made of it (Colab), that displays what it is given."""
    # A shell that imported IPython runs in it; nothing is imported to find out.
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)
