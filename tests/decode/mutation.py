"""Damaged videos: small ones of every codec, hurt at random as transfers, disks and attackers hurt them."""

from __future__ import annotations

import random

from tests.decode.synthesis import Clip

BASES = {
    "h264 mp4": Clip(frames=24, gop=8),
    "h264 mpegts": Clip(container="mpegts", frames=24, gop=8),
    "hevc": Clip("libx265", "matroska", frames=24, options={"x265-params": "keyint=8:log-level=none"}),
    "vp9": Clip("libvpx-vp9", "webm", frames=24, gop=8, options={"deadline": "realtime"}),
    "av1": Clip("libsvtav1", frames=24, gop=8, options={"preset": "12"}),
    "mpeg4 avi": Clip("mpeg4", "avi", frames=24, tags={"max_b_frames": 2}),
    "gif": Clip("gif", "gif", frames=24, pixel_format="rgb8"),
    "apng": Clip("apng", "apng", frames=24, pixel_format="rgb24"),
    "mpeg2": Clip("mpeg2video", "mpegts", frames=24, tags={"max_b_frames": 2}),
}


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Damage bytes: flips, zeros, holes, cuts."""
    damaged = bytearray(data)
    place = chance.randrange(len(damaged))
    match chance.choice(["flips", "head", "zeros", "hole", "cut"]):
        case "flips":
            for _ in range(chance.choice([1, 10, 100])):
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        case "head":
            damaged[chance.randrange(min(1500, len(damaged)))] = chance.randrange(256)
        case "zeros":
            damaged[place : place + 200] = bytes(min(200, len(damaged) - place))
        case "hole":
            del damaged[place : place + chance.choice([1, 188, 400])]
        case "cut":
            del damaged[place:]
    return bytes(damaged)
