"""Random clips with visible structure, to settle batch norms and to check exports.

White noise averages to the same features for every seed, and would hide an error. These clips have large moving
patches, fine grain, and their own contrast and brightness.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from clipserve_export.specs import Geometry

# Size of the coarse noise that is scaled up to a clip: frames, rows, columns.
_PATCHES = (4, 7, 7)


def random_clips(geometry: Geometry, *, batch: int, views: int, seed: int) -> Tensor:
    """uint8 [batch, views, T, S, S, 3], the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    count, side = batch * views, geometry.crop

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    coarse = uniform(count, 3, *_PATCHES)
    patches = interpolate(coarse, size=(geometry.frames, side, side), mode="trilinear")
    contrast = 0.3 + 0.7 * uniform(count, 1, 1, 1, 1)
    brightness = (1 - contrast) * uniform(count, 1, 1, 1, 1)
    grain = 0.1 * (uniform(*patches.shape) - 0.5)
    pixels = ((brightness + contrast * patches + grain).clamp(0, 1) * 255).byte()
    return pixels.permute(0, 2, 3, 4, 1).reshape(batch, views, geometry.frames, side, side, 3)
