"""A Debian that has the packages README names and nothing else, with a clean clone of this repository in it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.deploy.engine import run

ROOT = Path(__file__).parents[2]
# Whom this machine trusts, and which packages it installs from: the network here, not the machine's own software.
NETWORK_FILES = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/etc/ssl/certs/ca-certificates.crt",
    "~/.config/pip/pip.conf",
    "~/.pip/pip.conf",
)
NETWORK_VARIABLES = re.compile(r"PIP_\w+|(?i:https?|no|all)_proxy|SSL_CERT_FILE|REQUESTS_CA_BUNDLE")
# The root's own processes and shared memory end with the command.
ENTER = """
set -e
mount -t proc proc $ROOT/proc
mount --rbind /dev $ROOT/dev
mount -t tmpfs tmpfs $ROOT/dev/shm
for folder in $FOLDERS; do mkdir -p $ROOT$folder; mount --rbind $folder $ROOT$folder; done
exec chroot $ROOT /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""


def packages_of_readme() -> list[str]:
    """What README tells to install on a fresh Debian."""
    found = re.search(r"`apt-get install ([^`]+)`", (ROOT / "README.md").read_text())
    assert found, "README names no packages of Debian"
    return found[1].split()


class BareMachine:
    """Made in `folder`, which must be on a file system that can hold some gigabytes."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"

    def make(self) -> None:
        """By debootstrap, from where this machine gets its Debian packages."""
        packages = ",".join(packages_of_readme())
        run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", self.root, *_mirror())
        for name in NETWORK_FILES:
            path = Path(name).expanduser()
            if path.exists():
                copy = self.root / (f"root/{name[2:]}" if name.startswith("~") else name[1:])
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
        run("git", "clone", "-q", ROOT, self.root / "root" / "clipserve")

    def run(self, command: str, *, seconds: float) -> subprocess.CompletedProcess[str]:
        """A shell's command in the clone; stdout has stderr, too. Everything it started ends with it."""
        variables = [f"{name}={value}" for name, value in os.environ.items() if NETWORK_VARIABLES.fullmatch(name)]
        unshare = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "bash", "-c", ENTER, "enter"]
        inner = [*variables, "bash", "-c", f"cd /root/clipserve && {command}"]
        return subprocess.run(
            [*unshare, *inner],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "ROOT": str(self.root), "FOLDERS": shlex.join(_folders_of_packages())},
            timeout=seconds,
        )


def _mirror() -> list[str]:
    """The first address in apt's configuration; none, and debootstrap takes Debian's."""
    places = [*Path("/etc/apt").glob("sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.*"))]
    for path in places:
        for line in path.read_text().splitlines():
            if found := re.match(r"(?:URIs:|deb(?: \[.*\])?)\s+(https?://\S+/debian/?)(?:\s|$)", line):
                return [found[1]]
    return []


def _folders_of_packages() -> list[str]:
    """Folders of this machine in which pip's configuration looks for packages, and what their pages refer to."""
    told = run(sys.executable, "-m", "pip", "config", "list").stdout
    named = [Path(name) for name in re.findall(r"(?:file://|['\"\s])(/[\w./+-]+)", told)]
    return sorted({str(folder.parent) for folder in named if folder.is_dir() and len(folder.parts) > 2})
