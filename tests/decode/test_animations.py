"""Images that move: GIF and PNG animations, put together as their formats say, and the ones that are refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from clip_decode import Limits
from tests.decode.images import make_chunk, make_image
from tests.decode.outcomes import decode_unscaled, refusal
from tests.decode.synthesis import Clip

CHANCE = np.random.default_rng(3)
SIZE = (96, 64)
COUNT = 5


def draw(mode: str, colours: int) -> list[Image.Image]:
    """A patch of noise that wanders over an empty, transparent or black, canvas."""
    palette = CHANCE.integers(0, 256, 3 * colours).tolist()
    images = []
    for number in range(COUNT):
        place = (slice(10 + number, 40), slice(8 * number + 3, 8 * number + 40))
        samples = CHANCE.integers(0, colours, (30 - number, 37), dtype=np.uint8)
        if mode == "P":
            canvas = np.zeros(SIZE[::-1], np.uint8)
            canvas[place] = samples
            image = Image.fromarray(canvas)
            image.putpalette(palette)
        else:
            rgba = np.zeros((*SIZE[::-1], 4), np.uint8)
            rgba[place] = np.stack([samples, samples // 2, 255 - samples, np.full_like(samples, 255)], axis=-1)
            image = Image.fromarray(rgba).convert(mode)
        images.append(image)
    return images


def save(images: list[Image.Image], name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    images[0].save(file, name, save_all=True, append_images=images[1:], duration=100, **options)
    return file.getvalue()


ANIMATIONS = {
    **{f"gif disposal {d}": ("RGBA", 256, "GIF", {"disposal": d, "loop": 0}) for d in (0, 1, 2, 3)},
    "gif mixed": ("RGBA", 256, "GIF", {"disposal": [1, 2, 3, 1, 2], "loop": 3}),
    **{f"apng {d} {b}": ("RGBA", 256, "PNG", {"disposal": d, "blend": b}) for d in (0, 1, 2) for b in (0, 1)},
    "apng palette": ("P", 200, "PNG", {}),
    "apng transparent palette": ("P", 200, "PNG", {"transparency": 0, "blend": 1}),
    "apng rgb": ("RGB", 256, "PNG", {"disposal": 1}),
    "apng grey": ("L", 256, "PNG", {"blend": 1}),
}


@pytest.mark.parametrize("name", ANIMATIONS)
def test_animations_are_put_together_as_another_library_does(name: str) -> None:
    mode, colours, kind, options = ANIMATIONS[name]
    data = save(draw(mode, colours), kind, **options)
    pixels, report = decode_unscaled(data, COUNT, min(SIZE))
    assert (report.frames, report.fps, report.duration_seconds) == (COUNT, 10.0, 0.5)
    with Image.open(io.BytesIO(data)) as image:
        expected = [np.array(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]
    left = (SIZE[0] - SIZE[1]) // 2
    for number, frame in enumerate(expected):
        square = frame[:, left : left + SIZE[1]]
        visible = square[..., 3] > 0
        assert (pixels[0, number][visible] == square[visible][:, :3]).all(), number
        # Nothing shows through where nothing is: white in a GIF, as FFmpeg makes RGB of it.
        assert kind == "PNG" or (pixels[0, number][~visible] == 255).all()


@pytest.mark.parametrize("colours", [2, 4, 16])
def test_png_animations_that_ffmpeg_puts_together_wrongly_are_refused(colours: int) -> None:
    error = refusal(save(draw("P", colours), "PNG"))
    assert error.code == "unsupported-codec"
    assert "8 are allowed" in error.message


@pytest.mark.parametrize("codec", ["gif", "png", "apng", "libwebp"])
def test_images_of_one_picture_are_no_videos(codec: str) -> None:
    data = Clip("apng", "apng", frames=1, pixel_format="rgb24").make() if codec == "apng" else make_image(codec)
    assert refusal(data).code == "not-a-video"


def test_an_animated_webp_is_refused_by_name() -> None:
    data = Clip("libwebp_anim", "webp", frames=3).make()
    error = refusal(data)
    assert error.code == "not-a-video"
    assert "animated WebP" in error.message


def test_animations_keep_to_the_limits() -> None:
    gif = Clip("gif", "gif", pixel_format="rgb8", frames=20).make()
    assert refusal(gif, Limits(max_pixels=96 * 64 - 1)).code == "too-large"
    assert refusal(gif, Limits(max_frames=19)).code == "too-long"
    # A canvas that the header says is huge, in front of frames that are small.
    huge = gif[:6] + b"\xff\xff\xff\xff" + gif[10:]
    assert refusal(huge).code in ("too-large", "truncated")
    png = Clip("apng", "apng", pixel_format="rgb24", frames=5).make()
    header = b"\xff\xff\xff\x7f" * 2 + png[24:29]
    assert refusal(png[:8] + make_chunk(b"IHDR", header) + png[33:]).code in ("too-large", "not-a-video")


def test_an_animation_that_is_cut_off_gives_the_frames_it_has() -> None:
    for clip in (Clip("gif", "gif", pixel_format="rgb8"), Clip("apng", "apng", pixel_format="rgb24")):
        data = clip.make()
        _, report = decode_unscaled(data[: len(data) // 2], 4, 64)
        assert 20 <= report.frames <= 26
