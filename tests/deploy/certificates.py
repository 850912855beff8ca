"""Certificates by the script that operators run."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clipserve import Tls

SCRIPT = Path(__file__).parents[2] / "deploy" / "tls" / "make_certificates.sh"


@dataclass(frozen=True)
class Certificates:
    """Folders the script filled."""

    root: Path

    @property
    def server(self) -> Path:
        """What the server reads."""
        return self.root / "ours" / "server"

    def client(self, authority: str = "ours") -> Tls:
        """A client that trusts our server and was certified by that authority."""
        folder = self.root / authority / "clients" / "alice"
        return Tls(self.server / "ca.pem", folder / "client.key", folder / "client.pem")


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it, with this user as the one who reads the files."""
    user = {"CLIPSERVE_UID": str(os.getuid()), "CLIPSERVE_GID": str(os.getgid())}
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, env={**os.environ, **user})


def make_certificates(root: Path) -> Certificates:
    """Two authorities: ours, and one that our server has no reason to trust."""
    for authority in ("ours", "foreign"):
        done = run_script("--folder", str(root / authority), "--client", "alice")
        assert done.returncode == 0, done.stderr
    return Certificates(root)
