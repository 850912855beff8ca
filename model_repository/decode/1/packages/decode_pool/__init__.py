"""FFmpeg in worker processes. One that dies costs one request, and the service goes on.

    pool.py             the pool: takes videos, gives clips
    slots.py            its threads, each with one worker; nvdec_slot.py: those of NVDEC
    job_queue.py        the videos that wait
    admission.py        whether a network has room for another video
    process.py          a worker process: its start, its jobs, its end; standard_error.py: what it writes
    messages.py         what the pool and a worker send to each other
    worker.py           the program of a worker
    nvdec.py            the GPUs, and the processes that decode with NVDEC; nvdec_worker.py: their program;
                        nvdec_comparison.py: which videos they take
    window_stream.py    the windows of one long video, from a process of its own; window_worker.py: its program;
                        window_messages.py: what both send; video_memory.py: the video that both see
    settings.py         what the pool may use of this machine

Imports go one way: pool -> nvdec_slot -> slots -> job_queue -> admission, and slots, nvdec -> process -> messages. The
programs import messages and clip_decode, not the pool.
"""
