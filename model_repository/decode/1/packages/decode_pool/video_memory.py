"""The bytes of a video in memory that processes share: written once, and mapped by each worker that decodes them."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class VideoMemory:
    """A sealed memory file: no process can change the bytes, not even a worker that a hostile video controls.

    Attributes:
        descriptor: of the file.
        size: number of bytes.

    Raises:
        OSError: the machine has no memory for it.
    """

    def __init__(self, video: bytes | memoryview) -> None:
        self.size = len(video)
        self.descriptor = os.memfd_create("clipserve-video", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._lock = threading.Lock()
        self._is_closed = False
        try:
            left = memoryview(video)
            while left:
                left = left[os.write(self.descriptor, left) :]
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the memory as soon as no worker maps it any more. Does nothing the second time."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self.descriptor)


def map_video(descriptor: int, size: int) -> memoryview:
    """The bytes behind the descriptor of a VideoMemory, which is closed. Raises OSError or ValueError."""
    with contextlib.closing(os.fdopen(descriptor, "rb")) as file:
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
