"""The FFmpeg that PyAV brings, for programs that bring none: then all decode with the very same libraries."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path


def share_ffmpeg(folder: Path) -> str:
    """A value of LD_LIBRARY_PATH under which torchcodec, which brings no FFmpeg, finds PyAV's.

    Args:
        folder: made, for links under the names that torchcodec looks for.
    """
    found = find_spec("av")
    assert found is not None
    assert found.origin is not None
    libraries = Path(found.origin).parents[1] / "av.libs"
    folder.mkdir(parents=True)
    for library in libraries.glob("lib*.so*"):
        name = re.sub(r"-[0-9a-f]{8}", "", library.name)
        (folder / re.sub(r"(\.so\.\d+).*", r"\1", name)).symlink_to(library)
    return os.pathsep.join(filter(None, (str(folder), str(libraries), os.environ.get("LD_LIBRARY_PATH"))))
