"""The adapters: one module for each family of networks.

An adapter says how a network of its family is built, how it is taken apart into an embedding and a projection, and what
its checkpoints call that projection. `ModelSpec.family` names the module; its `ADAPTER` is the class. All else follows
from the model's contract.

    adapter       what every adapter defines, and how one is found
    hub           PyTorchVideo's networks of blocks, which most of the families are
    x3d, mvit, motion, resnet, csn, r2plus1d, slowfast
    token_blocks  MViT's blocks, rewritten for speed
"""
