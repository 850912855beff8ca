"""Importing the evaluation loads no package of its extra; using it without them says what to install."""

import subprocess
import sys


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_importing_it_loads_nothing_heavy():
    heavy = ("sklearn", "scipy", "matplotlib", "jinja2", "pandas", "rich", "typer")
    program = f"import sys, clipserve.evaluation; print([name for name in {heavy} if name in sys.modules])"
    result = run(program)
    assert result.stdout.strip() == "[]", result.stderr


def test_without_its_extra_it_says_what_to_install_before_anything_is_sent():
    program = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sklearn":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from clipserve.evaluation import evaluate
evaluate([{"path": "a.mp4", "label": "still"}], url="localhost:1")
"""
    result = run(program)
    message = "InvalidRequest: this needs sklearn, which is not installed: pip install 'clipserve[evaluation]'"
    assert message in result.stderr
