"""The packets of a video that is too long to keep them all: read from the file when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import overload

from av.packet import Packet
from av.video.stream import VideoStream

from clip_decode.demux.container import FFMPEG_ERRORS, open_video
from clip_decode.demux.packets import demux_packets
from clip_decode.limits import Limits


class PacketStream(Sequence["Packet[VideoStream]"]):
    """A sequence of packets, none of which stays in memory. Made for reading in order.

    A packet before the last one that was read makes it read the file from its beginning.

    Args:
        data: the bytes of the file.
        count: number of packets, from an index.
        limits: bounds of the video.
        tick: called for each packet that is read.
    """

    def __init__(self, data: bytes | memoryview, count: int, limits: Limits, tick: Callable[[], None]) -> None:
        self._data, self._count, self._limits, self._tick = data, count, limits, tick
        self._open = ExitStack()
        self._next = count  # Not open yet.
        self._packets: Iterator[Packet[VideoStream]] = iter(())

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Packet[VideoStream]: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Packet[VideoStream]]: ...
    def __getitem__(self, number: int | slice) -> Packet[VideoStream] | Sequence[Packet[VideoStream]]:
        """The packet with this number. Raises OSError where the file cannot be read to it again."""
        if isinstance(number, slice) or not 0 <= number < self._count:
            raise IndexError(number)
        if number < self._next:
            self.rewind()
        try:
            while True:
                packet = next(self._packets)
                self._tick()
                self._next += 1
                if self._next > number:
                    return packet
        except (StopIteration, *FFMPEG_ERRORS) as error:
            self.close()
            raise OSError("the file has fewer packets when it is read again") from error

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._next < self._count

    def rewind(self) -> None:
        """Open the file at its beginning. FFmpeg may log errors of the first frames meanwhile."""
        self.close()
        self._packets = demux_packets(self._open.enter_context(open_video(self._data, self._limits)))
        self._next = 0

    def close(self) -> None:
        """Close the file. The next packet opens it again."""
        self._open.close()
        self._next = self._count
