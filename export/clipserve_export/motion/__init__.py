"""The `motion` model: a small X3D trained on generated clips of twelve motions, so no download is needed."""
