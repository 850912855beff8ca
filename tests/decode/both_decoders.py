"""A video decoded by NVDEC and by a CPU."""

from __future__ import annotations

import json
from collections.abc import Collection
from types import ModuleType

from clip_decode import Geometry, Limits, Report, Sampling, decode_clips
from clip_decode.decode.nvdec.cuda import Cuda
from clip_decode.decode.nvdec.gpu import Nvdec
from clip_decode.engine import decode_clips_with_nvdec

GEOMETRIES = {"large": Geometry(8, 5, 64, 64), "small": Geometry(5, 5, 48, 40)}


def plain(nvc: ModuleType, *, megabytes: int = 1000, excluded: Collection[str] = ()) -> Nvdec:
    return Nvdec(nvc, Cuda(), megabytes=megabytes, excluded=excluded)


def facts(report: Report) -> dict[str, object]:
    """What a report says about the video, not about its decoding."""
    values = json.loads(report.to_json())
    # NVDEC takes AV1 by whole packets, and a CPU by frames.
    others = {"decoder", "decode_milliseconds", *(["decoded_frames"] if report.codec == "av1" else [])}
    return {name: value for name, value in values.items() if name not in others}


def check(nvdec: Nvdec, data: bytes, sampling: Sampling) -> Report:
    """Compare both decoders, to the bit."""
    pixels, report = decode_clips_with_nvdec(nvdec, data, GEOMETRIES, sampling, Limits())
    expected, by_cpu = decode_clips(data, GEOMETRIES, sampling, Limits())
    assert (report.decoder, by_cpu.decoder) == ("nvdec", "cpu")
    assert facts(report) == facts(by_cpu)
    assert report.decoded_frames >= by_cpu.decoded_frames
    for name in GEOMETRIES:
        assert (pixels[name] == expected[name]).all()
    return report
