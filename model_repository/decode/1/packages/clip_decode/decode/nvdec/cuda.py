"""The few calls of the CUDA driver that copying a frame takes (CUDA Driver API, cuda.h): no torch, no toolkit."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from clip_decode.decode.nvdec.surface import Samples

LIBRARY = "libcuda.so.1"
_NON_BLOCKING = 1
_BLOCKING_SYNC = 4


class CudaError(RuntimeError):
    """A call of the driver failed."""


class Cuda:
    """The primary context of one GPU, which every decoder of the process shares.

    Raises:
        CudaError: there is no such GPU, or its driver fails.
        OSError: the driver is not installed.
    """

    def __init__(self, gpu: int = 0) -> None:
        self._driver = ctypes.CDLL(LIBRARY)
        self._call("cuInit", 0)
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), gpu)
        # A thread that waits for the GPU sleeps. By default it spins, on a core that could decode other videos.
        self._call("cuDevicePrimaryCtxSetFlags_v2", device, _BLOCKING_SYNC)
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._context = int(context.value or 0)

    @property
    def context(self) -> int:
        """The handle of the context."""
        return self._context

    def create_stream(self) -> int:
        """The handle of a new stream, which does not wait for the default stream."""
        stream = ctypes.c_void_p()
        with self._current():
            self._call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        return int(stream.value or 0)

    def destroy_stream(self, stream: int) -> None:
        """Release a stream. Does nothing where the driver fails: after some errors it releases nothing any more."""
        with suppress(CudaError), self._current():
            self._call("cuStreamDestroy_v2", ctypes.c_void_p(stream))

    def copy(self, samples: Samples, address: int, stream: int) -> None:
        """Fill `samples` from the GPU's memory, after all earlier work of the stream."""
        with self._current():
            self._call(
                "cuMemcpyDtoHAsync_v2",
                ctypes.c_void_p(samples.ctypes.data),
                ctypes.c_uint64(address),
                ctypes.c_size_t(samples.nbytes),
                ctypes.c_void_p(stream),
            )
            self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def memory(self) -> tuple[int, int]:
        """Bytes of the GPU's memory: free, and total."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        with self._current():
            self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def clear_thread(self) -> None:
        """Pop every context of this thread; PyNvVideoCodec leaves one there for each frame that it does not copy."""
        while self._driver.cuCtxPopCurrent_v2(ctypes.byref(context := ctypes.c_void_p())) == 0 and context.value:
            pass

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._call("cuCtxPushCurrent_v2", ctypes.c_void_p(self._context))
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorName(status, ctypes.byref(text))
            raise CudaError(f"{name} returned {status} {(text.value or b'').decode()}".rstrip())
