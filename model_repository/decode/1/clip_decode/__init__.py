"""Bytes of a video file in, uint8 clips out: exact frames, little work, no other file opened.

Nothing is imported here: only `engine` and what it uses load FFmpeg, and the process that talks to Triton must not.
"""
