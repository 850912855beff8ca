"""Streams of every codec and container that tests decode."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tests.decode.synthesis import Clip, Plain

REORDERED = {"max_b_frames": 2}
X265 = "keyint=20:min-keyint=5:log-level=none"
QUICK_VPX = {"deadline": "realtime", "cpu-used": "8"}
HIDDEN_FRAMES = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}

# name: (clip, the method of its report). "whole" are streams whose dependencies are unknown.
STREAMS: dict[str, tuple[Clip, str]] = {
    **{f"h264 in {c}": (Clip(container=c, gop=20), "selected") for c in ("mp4", "mov", "matroska", "mpegts", "flv")},
    "h264 in avi": (Clip(container="avi", gop=20), "whole"),
    "h264 raw": (Clip(container="h264", gop=20), "whole"),
    "h264 raw without B frames": (Clip(container="h264", gop=20, options={"bf": "0"}), "selected"),
    "h264 without B frames in avi": (Clip(container="avi", gop=20, options={"bf": "0"}), "selected"),
    "h264 open GOPs": (Clip(options={"x264-params": "open-gop=1:keyint=16:min-keyint=8"}), "selected"),
    "h264 pyramid": (Clip(options={"x264-params": "b-pyramid=normal:bframes=6:keyint=24"}), "selected"),
    "h264 intra refresh": (Clip(options={"x264-params": "intra-refresh=1:keyint=16"}), "selected"),
    "h264 interlaced": (Clip(options={"x264-params": "interlaced=1:keyint=16"}), "selected"),
    "h264 slices": (Clip(container="mpegts", options={"x264-params": "slices=4:keyint=16"}), "selected"),
    "h264 tiny GOPs": (Clip(options={"x264-params": "keyint=3:bframes=1"}), "selected"),
    "h264 many references": (Clip(options={"x264-params": "ref=8:bframes=8:b-adapt=2"}), "selected"),
    "h264 10 bit": (Clip(pixel_format="yuv420p10le", gop=20), "selected"),
    "h264 4:4:4": (Clip(pixel_format="yuv444p", gop=20), "selected"),
    "h264 grey": (Clip(pixel_format="gray", gop=20), "selected"),
    "h264 full range": (Clip(pixel_format="yuvj420p", gop=20), "selected"),
    "h264 rgb": (Clip("libx264rgb", pixel_format="rgb24", gop=20), "selected"),
    "h264 fragments": (Clip(gop=16, muxer={"movflags": "frag_keyframe+empty_moov"}), "selected"),
    "h264 live matroska": (Clip(container="matroska", gop=16, muxer={"live": "1"}), "selected"),
    **{
        f"hevc open GOPs in {c}": (Clip("libx265", c, options={"x265-params": X265}), "selected")
        for c in ("mp4", "matroska", "mpegts")
    },
    "hevc raw": (Clip("libx265", "hevc", options={"x265-params": X265}), "whole"),
    "hevc closed GOPs": (Clip("libx265", options={"x265-params": X265 + ":open-gop=0"}), "selected"),
    "hevc temporal layers": (Clip("libx265", options={"x265-params": X265 + ":temporal-layers=3"}), "selected"),
    "hevc decodable leading": (Clip("libx265", options={"x265-params": X265 + ":open-gop=0:radl=2"}), "selected"),
    "hevc 10 bit": (Clip("libx265", pixel_format="yuv420p10le", options={"x265-params": X265}), "selected"),
    **{f"vp9 in {c}": (Clip("libvpx-vp9", c, gop=20, options=QUICK_VPX), "selected") for c in ("webm", "mp4", "ivf")},
    "vp9 hidden frames": (Clip("libvpx-vp9", "webm", gop=24, options=HIDDEN_FRAMES), "selected"),
    "vp9 alpha": (Clip("libvpx-vp9", "webm", gop=20, pixel_format="yuva420p", options=QUICK_VPX), "selected"),
    "vp8": (Clip("libvpx", "webm", gop=20, options=QUICK_VPX), "selected"),
    "vp8 hidden frames": (Clip("libvpx", "webm", gop=24, options=HIDDEN_FRAMES), "selected"),
    **{
        f"av1 in {c}": (Clip("libsvtav1", c, gop=20, options={"preset": "12"}), "selected")
        for c in ("mp4", "webm", "ivf")
    },
    "av1 low delay": (Clip("libsvtav1", gop=20, options={"svtav1-params": "pred-struct=1:preset=12"}), "selected"),
    "av1 pyramids": (Clip("libsvtav1", frames=140, gop=64, options={"preset": "10"}), "selected"),
    "av1 fine pyramids": (Clip("libsvtav1", frames=80, gop=40, options={"preset": "6"}), "selected"),
    "av1 grain": (
        Clip("libsvtav1", frames=70, gop=64, options={"svtav1-params": "film-grain=30:preset=10"}),
        "selected",
    ),
    "av1 10 bit": (Clip("libsvtav1", pixel_format="yuv420p10le", gop=20, options={"preset": "12"}), "selected"),
    "av1 screen": (Clip("libsvtav1", frames=70, gop=64, options={"svtav1-params": "scm=1:preset=8"}), "selected"),
    **{f"mpeg4 in {c}": (Clip("mpeg4", c, tags=REORDERED), "selected") for c in ("mp4", "avi", "matroska", "mpegts")},
    "mpeg4 without B frames in avi": (Clip("mpeg4", "avi"), "selected"),
    "mpeg4 interlaced": (Clip("mpeg4", "avi", options={"flags": "+ildct+ilme"}), "selected"),
    "mpeg4 interlaced B frames": (Clip("mpeg4", gop=12, options={"flags": "+ildct+ilme"}, tags=REORDERED), "whole"),
    **{
        f"mpeg2 in {c}": (Clip("mpeg2video", c, tags=REORDERED), "selected")
        for c in ("mpegts", "mpeg", "avi", "matroska", "mpeg2video")
    },
    "mpeg2 interlaced": (Clip("mpeg2video", "mpegts", options={"flags": "+ildct+ilme"}, tags=REORDERED), "selected"),
    "mpeg1": (Clip("mpeg1video", "mpeg", tags=REORDERED), "selected"),
    **{f"mjpeg in {c}": (Clip("mjpeg", c, pixel_format="yuvj420p"), "selected") for c in ("avi", "mov", "matroska")},
    "prores": (Clip("prores_ks", "mov", pixel_format="yuv422p10le"), "selected"),
    "ffv1 alpha": (Clip("ffv1", "matroska", pixel_format="bgra"), "whole"),
    "qtrle": (Clip("qtrle", "mov", pixel_format="rgb24"), "whole"),
    "gif": (Clip("gif", "gif", pixel_format="rgb8"), "whole"),
    "apng": (Clip("apng", "apng", pixel_format="rgb24"), "whole"),
    "apng alpha": (Clip("apng", "apng", pixel_format="rgba"), "whole"),
    "png alpha": (Clip("png", "mov", pixel_format="rgba"), "selected"),
    "rawvideo": (Clip("rawvideo", "avi", pixel_format="bgr24"), "selected"),
    "flash video": (Clip("flv", "flv"), "whole"),
    "wmv": (Clip("wmv2", "asf"), "whole"),
    "msmpeg4": (Clip("msmpeg4", "avi"), "whole"),
    "odd sizes": (Clip("libvpx-vp9", "webm", width=97, height=63, gop=20, options=QUICK_VPX), "selected"),
    "odd sizes 4:4:4": (Clip(width=97, height=63, pixel_format="yuv444p", gop=20), "selected"),
}


@dataclass(frozen=True)
class Stream:
    """One of STREAMS, made and plainly decoded. side: the shorter one of its frames. rate: frames a second."""

    name: str
    method: str
    data: bytes
    plain: Plain
    side: int
    rate: Fraction


# Milliseconds of frames that come now fast, now slowly.
UNEVEN = [0, 10, 50, 60, 61, 100, 180, 200, 333, 400, 401, 500, 640, 666, 700, 710, 800, 900, 1000, 1500]
