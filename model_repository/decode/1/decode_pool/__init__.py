"""FFmpeg in processes that may die: one request is lost with one of them, and the service goes on."""
