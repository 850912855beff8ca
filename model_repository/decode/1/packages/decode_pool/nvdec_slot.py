"""The slots of NVDEC: each gives videos to one of the connections of an NVDEC process."""

from __future__ import annotations

import contextlib
import time
import traceback
from dataclasses import replace

from clip_decode.errors import Declined, DecodeError, InvalidRequest, VideoError

from .job_queue import QueuedJob
from .nvdec import NvdecProcess
from .process import WorkerGone
from .slots import MAX_PAUSE_SECONDS, POLL_SECONDS, SharedState, WorkerSlot


class NvdecSlot(WorkerSlot):
    """A slot for one of the videos that an NVDEC process decodes at a time. Slot 0 of a process starts the process.

    When anything goes wrong here, a CPU decodes the video: that costs time only.
    """

    is_nvdec = True

    def __init__(self, shared: SharedState, process: NvdecProcess, number: int) -> None:
        super().__init__(shared, number)
        self._process, self._number = process, number
        self._started = 0.0
        self._early_deaths = 0  # in a row

    @property
    def starts_process(self) -> bool:
        """Whether this slot starts the process."""
        return self._number == 0

    def close(self) -> None:
        """See WorkerSlot."""
        if self.starts_process:
            self._process.kill()
        super().close()
        if self.starts_process:
            self._process.close_free()

    def _takes_jobs(self) -> bool:
        return self._has_worker()

    def _handle(self, entry: QueuedJob) -> None:
        try:
            if not entry.start():
                return
            assert self.worker is not None
            decoded = self.worker.decode(entry.job)
        except (InvalidRequest, VideoError) as error:
            # A CPU would raise the same.
            entry.future.set_exception(error.with_traceback(None))
        except (Declined, WorkerGone):
            self._leave_to_cpu(entry)
        except Exception as error:
            log = self.shared.log
            if isinstance(error, DecodeError):
                log.video_error(entry.job, error)
            else:
                error.add_note(traceback.format_exc())
                log.error(f"NVDEC failed ({type(error).__name__}); a CPU decodes the video", error)
            self._leave_to_cpu(entry)
        else:
            entry.future.set_result(replace(decoded, decoder="nvdec"))

    def _leave_to_cpu(self, entry: QueuedJob) -> None:
        self.shared.queue.requeue(entry)
        with contextlib.suppress(Exception):
            self.shared.on_decline()

    def _has_worker(self) -> bool:
        if self.starts_process:
            self._delay_after_death()
            return super()._has_worker()
        if self.worker is not None and self.worker.is_alive:
            return True
        found = self._process.take(self._number)
        if found is None:
            return False
        if self.worker is not None:
            self.worker.end()
        self.worker = found
        return found.is_alive

    def _delay_after_death(self) -> None:
        """Start a process that keeps dying later and later: each death costs the videos in it some time."""
        if self.worker is None or self.worker.is_alive:
            return
        self.worker.end()
        self.worker = None
        lived = time.monotonic() - self._started
        self._early_deaths = self._early_deaths + 1 if lived < MAX_PAUSE_SECONDS else 0
        self._next_start = time.monotonic() + min(POLL_SECONDS * 2**self._early_deaths, MAX_PAUSE_SECONDS)

    def _launch(self) -> None:
        self.worker = self._process.start(self.shared.limits)
        self._started = time.monotonic()
