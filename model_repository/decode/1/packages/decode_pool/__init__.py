"""FFmpeg in worker processes. One that dies costs one request, and the service goes on.

Imports go one way: pool -> slots -> job_queue -> admission, and slots -> nvdec -> process -> messages. The programs of
the workers, worker and nvdec_worker, import messages and clip_decode.
"""
