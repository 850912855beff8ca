"""Many videos, several at once: runs, and the streams of rows that come out of them."""
