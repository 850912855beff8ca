"""Every default of the client, in one place."""

from typing import Literal

URL = "localhost:8001"  # Triton's gRPC port; 8000 is its HTTP port
MODEL = "x3d_m"
TOP_K = 5
SAMPLING: Literal["uniform"] = "uniform"
QUALITY: Literal["fast"] = "fast"
MAX_CLIPS = 30  # views x crops; the server's limit, and the largest published protocol: 10 x 3
TIMEOUT_SECONDS = 60.0  # deadline of every call
LONGEST_SECONDS = 10**9  # of any deadline: some thirty years; gRPC and sockets fail on spans far beyond it
READY_TIMEOUT_SECONDS = 120.0  # loading every model of the repository takes a server about a minute
READY_POLL_SECONDS = 0.25

# After a refusal the client asks the server one small question to name the cause (which models are
# there, is this one ready). It must not turn a failure that came at once into a long wait.
FOLLOW_UP_SECONDS = 2.0

# Triton's own limit for one gRPC message, and protobuf's.
MAX_MESSAGE_BYTES = 2**31 - 1
# The message also carries names, shapes and parameters; 64 KiB is far more than they need.
MAX_VIDEO_BYTES = MAX_MESSAGE_BYTES - 64 * 1024

# Of what the client fetches from http(s) addresses. The server's own limit is 512 MiB, too.
MAX_DOWNLOAD_BYTES = 512 * 1024 * 1024
DOWNLOAD_SECONDS = 60.0

# Many videos at once: requests under way, and entries read ahead of the row that is handed out next, in multiples of
# that. A slow video then holds up nobody, and no more than so many rows wait behind it.
PARALLEL = 5
READ_AHEAD = 4

# Retries wait a random time below a limit that doubles from the first to the longest: "full jitter", by which many
# clients do not come back at the same moment (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 5.0

# How long a job waits for a server that is away, such as one that is replaced by a newer one.
JOB_PATIENCE_SECONDS = 600.0

# A stock Triton cuts off clients that ping more often than every 300 s
# (--grpc-http2-min-recv-ping-interval-without-data), so stay above that.
KEEPALIVE_TIME_MS = 330_000
KEEPALIVE_TIMEOUT_MS = 20_000

# gRPC waits up to 120 s between attempts to reach a server that was down. A server that has just
# come up should be found within seconds.
FIRST_RECONNECT_MS = 250
LONGEST_RECONNECT_MS = 2_000
