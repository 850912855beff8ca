"""FFmpeg in worker processes. One that dies costs one request, and the service goes on.

Imports go one way: pool -> slots -> job_queue -> admission, and slots -> nvdec -> process -> messages. The programs of
the workers are worker, nvdec_worker and window_worker; they import messages and clip_decode.
"""
