"""Pixels of decoded frames: colour conversion, orientation, scaling, cropping, and the clips that they fill."""
