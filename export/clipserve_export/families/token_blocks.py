"""MViT's blocks, rewritten: the same function as PyTorchVideo's, with less arithmetic and fewer copies.

To pool tokens, PyTorchVideo moves the channels before time and space, for each head, and back again. It computes the
last block for every token, although only the class token is read. Here the tokens [B, 1 + T H W, C] keep their order,
because a convolution needs no copy when the channels are last. The heads are split after pooling, when there are fewer
tokens. The residual is pooled without a copy, and the last block computes the class token only.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipserve_export.zoo import pytorchvideo

Sizes = list[int]  # time, height, width


def rewrite_blocks(module: nn.Module) -> None:
    """Replace every block of an MViT by a TokenBlock, in place. Does nothing to other networks.

    Raises ValueError for a block that none of the hub's MViTs has.
    """
    original = pytorchvideo("layers.attention").MultiScaleBlock
    for blocks in [child for child in module.modules() if isinstance(child, nn.ModuleList)]:
        for place, block in enumerate(blocks):
            if isinstance(block, original):
                blocks[place] = TokenBlock(block, last=place == len(blocks) - 1)


class TokenBlock(nn.Module):
    """Computes a MultiScaleBlock with its parts and weights."""

    def __init__(self, original: Any, *, last: bool) -> None:
        super().__init__()
        attention, skip = original.attn, original.pool_skip
        if attention.pool_first or attention.dropout_rate or not original.has_cls_embed:
            raise ValueError("none of the hub's MViTs pools ahead of the projection, drops out or lacks a class token")
        if last and skip is not None:
            raise ValueError("none of the hub's MViTs pools in its last block")
        self.last, self.attention = last, attention
        self.norm1, self.norm2, self.mlp = original.norm1, original.norm2, original.mlp
        self.widen = original.proj if original.dim != original.dim_out else None
        self.skip = None if skip is None else ResidualPool(skip)

    def forward(self, tokens: Tensor, sizes: Sizes) -> tuple[Tensor, Sizes]:
        """[B, 1 + T H W, C] -> [B, 1 + T' H' W', C'] and the new sizes. The last block returns [B, 1, C']."""
        attended = self.attend(self.norm1(tokens), sizes)
        if self.last:
            tokens = tokens[:, :1]
        elif self.skip is not None:
            tokens, sizes = self.skip(tokens, sizes)
        tokens = tokens + attended
        normed = self.norm2(tokens)
        kept = tokens if self.widen is None else self.widen(normed)
        return kept + self.mlp(normed), sizes

    def attend(self, tokens: Tensor, sizes: Sizes) -> Tensor:
        """The attention of the pooled tokens. In the last block the only query is the class token, not pooled."""
        a = self.attention
        queries, query_sizes = (tokens[:, :1], None) if self.last else (tokens, sizes)
        q = pool_heads(a.q(queries), a.pool_q, a.norm_q, a.num_heads, query_sizes)
        k = pool_heads(a.k(tokens), a.pool_k, a.norm_k, a.num_heads, sizes)
        v = pool_heads(a.v(tokens), a.pool_v, a.norm_v, a.num_heads, sizes)
        # The default scale is PyTorchVideo's: 1 / sqrt(channels of a head).
        attended = functional.scaled_dot_product_attention(q, k, v)
        return a.proj(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def pool_heads(
    tokens: Tensor, pool: nn.Conv3d | None, norm: nn.Module | None, heads: int, sizes: Sizes | None
) -> Tensor:
    """[B, N, C] -> [B, heads, N', C / heads], normalised. Pooled except for the class token, if `sizes` is given."""
    if pool is not None and sizes is not None:
        volume = tokens[:, 1:].unflatten(1, sizes).permute(0, 4, 1, 2, 3)
        # All heads share the kernels.
        kernels, channels = pool.weight.repeat(heads, 1, 1, 1, 1), tokens.shape[-1]
        pooled = functional.conv3d(volume, kernels, None, pool.stride, pool.padding, groups=channels)
        tokens = torch.cat((tokens[:, :1], pooled.flatten(2).transpose(1, 2)), 1)
    split: Tensor = tokens.unflatten(2, (heads, -1))
    if norm is not None:
        split = norm(split)
    return split.transpose(1, 2)


class ResidualPool(nn.Module):
    """Maximum pooling over height and width, for every frame and channel."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        if (pool.kernel_size[0], pool.stride[0], pool.padding[0]) != (1, 1, 0):
            raise ValueError("none of the hub's MViTs pools the residual over time")
        # The pool's depth, height and width are height, width and channels here.
        self.pool = nn.MaxPool3d((*pool.kernel_size[1:], 1), (*pool.stride[1:], 1), (*pool.padding[1:], 0))

    def forward(self, tokens: Tensor, sizes: Sizes) -> tuple[Tensor, Sizes]:
        """[B, 1 + T H W, C] -> [B, 1 + T H' W', C] and the new sizes."""
        frames = tokens[:, 1:].unflatten(1, sizes)
        pooled = self.pool(frames.flatten(0, 1).unsqueeze(1)).squeeze(1)
        height, width = pooled.shape[1:3]
        pooled = pooled.reshape(tokens.shape[0], -1, tokens.shape[-1])
        return torch.cat((tokens[:, :1], pooled), 1), [sizes[0], height, width]
