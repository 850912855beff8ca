"""Opening untrusted bytes as a container, and reading the packets of its video stream."""
