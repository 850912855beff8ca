"""Which packets each frame depends on, from the headers of the codec: one file a codec."""
