"""The limits of the decode step where its config states none, and the shared memory that it then needs.

The decode step has the same limits in clip_decode.limits, clip_decode.sampling and decode_pool.settings.
"""

MAX_VIDEO_BYTES = 512 * 2**20
MAX_WAITING_MEGABYTES = 2048  # of the videos that wait
MAX_WAITING = 64  # videos
MAX_CLIPS = 30  # of one video
# NVDEC: processes for each GPU, videos at a time in each, and MiB of the GPU for the decoders of each.
NVDEC = {"nvdec_processes": 3, "nvdec_streams": 6, "nvdec_megabytes": 2048}
# What Triton's Python backend takes for itself, for all models.
_BACKEND_BYTES = 64 * 2**20


def shared_memory_bytes(videos: int, *, video_bytes: int, views: int, clip_bytes: int) -> int:
    """Bytes of /dev/shm for a server: 64 MiB + videos x (video + views x largest clip).

    The videos that go to the decode step, and the clips that it returns, share a region that grows and never shrinks.

    Args:
        videos: in the decode step at one time: those that wait, one for each worker, and NVDEC's streams.
        video_bytes: of a file.
        views: clips of a video.
        clip_bytes: of the largest clip.
    """
    return _BACKEND_BYTES + videos * (video_bytes + views * clip_bytes)
