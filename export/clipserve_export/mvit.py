"""MViT's blocks, rewritten: the same function as PyTorchVideo's, with less to compute and to copy.

PyTorchVideo moves the channels of all tokens ahead of time and space, head by head, to pool them, and back again, and
computes the last block for every token though the class token alone is read. Here tokens [B, 1 + T H W, C] stay in
their order (a convolution over channels that lie last costs no copy), heads part after pooling, when there are fewer
tokens, the residual is pooled where it lies, and the last block answers for the class token only.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipserve_export.zoo import pytorchvideo

Sizes = list[int]  # time, height, width


def rewrite_blocks(module: nn.Module) -> None:
    """Put a TokenBlock in place of every block of an MViT, in place; nothing happens to other networks.

    Raises ValueError for a block that is not one of the hub's MViTs.
    """
    explicit = pytorchvideo("layers.attention").MultiScaleBlock
    for blocks in [child for child in module.modules() if isinstance(child, nn.ModuleList)]:
        for place, block in enumerate(blocks):
            if isinstance(block, explicit):
                blocks[place] = TokenBlock(block, last=place == len(blocks) - 1)


class TokenBlock(nn.Module):
    """A MultiScaleBlock, its parts and its weights."""

    def __init__(self, explicit: Any, *, last: bool) -> None:
        super().__init__()
        attention, skip = explicit.attn, explicit.pool_skip
        if attention.pool_first or attention.dropout_rate or not explicit.has_cls_embed:
            raise ValueError("none of the hub's MViTs pools ahead of the projection, drops out or lacks a class token")
        if last and skip is not None:
            raise ValueError("none of the hub's MViTs pools in its last block")
        self.last, self.attention = last, attention
        self.norm1, self.norm2, self.mlp = explicit.norm1, explicit.norm2, explicit.mlp
        self.widen = explicit.proj if explicit.dim != explicit.dim_out else None
        self.skip = None if skip is None else ResidualPool(skip)

    def forward(self, tokens: Tensor, sizes: Sizes) -> tuple[Tensor, Sizes]:
        """[B, 1 + T H W, C] -> [B, 1 + T' H' W', C'] and the new sizes; of the last block [B, 1, C']."""
        mixed = self.attend(self.norm1(tokens), sizes)
        if self.last:
            tokens = tokens[:, :1]
        elif self.skip is not None:
            tokens, sizes = self.skip(tokens, sizes)
        tokens = tokens + mixed
        normed = self.norm2(tokens)
        kept = tokens if self.widen is None else self.widen(normed)
        return kept + self.mlp(normed), sizes

    def attend(self, tokens: Tensor, sizes: Sizes) -> Tensor:
        """What tokens, pooled, take from each other; in the last block the class token alone asks, as it is."""
        a = self.attention
        asking, asking_sizes = (tokens[:, :1], None) if self.last else (tokens, sizes)
        q = pool_heads(a.q(asking), a.pool_q, a.norm_q, a.num_heads, asking_sizes)
        k = pool_heads(a.k(tokens), a.pool_k, a.norm_k, a.num_heads, sizes)
        v = pool_heads(a.v(tokens), a.pool_v, a.norm_v, a.num_heads, sizes)
        # Its default scale is that of PyTorchVideo: 1 / sqrt(channels a head).
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return a.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def pool_heads(
    tokens: Tensor, pool: nn.Conv3d | None, norm: nn.Module | None, heads: int, sizes: Sizes | None
) -> Tensor:
    """[B, N, C] -> [B, heads, N', C / heads]: pooled, but for the class token, and normalised; no sizes, no pooling."""
    if pool is not None and sizes is not None:
        volume = tokens[:, 1:].unflatten(1, sizes).permute(0, 4, 1, 2, 3)
        # All heads are pooled by the same kernels.
        kernels, channels = pool.weight.repeat(heads, 1, 1, 1, 1), tokens.shape[-1]
        pooled = functional.conv3d(volume, kernels, None, pool.stride, pool.padding, groups=channels)
        tokens = torch.cat((tokens[:, :1], pooled.flatten(2).transpose(1, 2)), 1)
    split: Tensor = tokens.unflatten(2, (heads, -1))
    if norm is not None:
        split = norm(split)
    return split.transpose(1, 2)


class ResidualPool(nn.Module):
    """Largest values of windows of height and width, for every frame and channel."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        if (pool.kernel_size[0], pool.stride[0], pool.padding[0]) != (1, 1, 0):
            raise ValueError("none of the hub's MViTs pools the residual over time")
        # (height, width, channels) take the places of what a pool calls depth, height and width.
        self.pool = nn.MaxPool3d((*pool.kernel_size[1:], 1), (*pool.stride[1:], 1), (*pool.padding[1:], 0))

    def forward(self, tokens: Tensor, sizes: Sizes) -> tuple[Tensor, Sizes]:
        """[B, 1 + T H W, C] -> [B, 1 + T H' W', C] and the new sizes."""
        frames = tokens[:, 1:].unflatten(1, sizes)
        pooled = self.pool(frames.flatten(0, 1).unsqueeze(1)).squeeze(1)
        height, width = pooled.shape[1:3]
        pooled = pooled.reshape(tokens.shape[0], -1, tokens.shape[-1])
        return torch.cat((tokens[:, :1], pooled), 1), [sizes[0], height, width]
