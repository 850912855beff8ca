"""The `motion` network: PyTorchVideo's X3D at its narrowest, and the clip that it reads.

The clip is eight frames spread over the whole video, its short side scaled to 64 and the central square cut out.
"""

from typing import cast

from torch import nn

from clipserve_export.zoo import pytorchvideo

FRAMES = 8
CROP = 64
FEATURES = 192


def build_motion_network(*, classes: int) -> nn.Module:
    """X3D, [N, 3, FRAMES, CROP, CROP] normalised float -> logits [N, classes]; weights depend on torch's seed."""
    network = pytorchvideo("models.x3d").create_x3d(
        input_clip_length=FRAMES,
        input_crop_size=CROP,
        model_num_class=classes,
        head_dim_out=FEATURES,
        head_activation=None,
        dropout_rate=0.2,
        width_factor=1.0,
        depth_factor=0.5,
        # The stem divides the side by 4 in one step, not by 2 twice: then the wide layers of the first stage have a
        # quarter of the pixels, and training takes minutes, not an hour (measured: 138 clips/s against 16).
        stem_conv_kernel_size=(5, 5, 5),
        stem_conv_stride=(1, 4, 4),
        stage_spatial_stride=(1, 2, 2, 2),
        # X3D's Swish without its custom autograd function, which cannot be exported or saved.
        inner_act=nn.SiLU,
    )
    return cast(nn.Module, network)
