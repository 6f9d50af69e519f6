"""A transformer on patches of images, frames or spectrograms."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import check_input, global_mean


class Block(nnx.Module):
    """A pre-norm transformer block: self-attention, then a two-layer network.

    Args:
        features: width of the tokens.
        heads: attention heads; they divide `features`.
        mlp_ratio: width of the hidden layer in units of `features`.
        dtype: type of the computation.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        mlp_ratio: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.norm1, self.norm2 = (
            nnx.LayerNorm(features, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            for _ in range(2)
        )
        self.attention = nnx.MultiHeadAttention(
            heads,
            features,
            dtype=dtype,
            param_dtype=param_dtype,
            decode=False,
            rngs=rngs,
        )
        hidden = mlp_ratio * features
        self.linear1, self.linear2 = (
            nnx.Linear(m, n, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            for m, n in ((features, hidden), (hidden, features))
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the block to tokens [B, N, features]."""
        x = x + self.attention(self.norm1(x))
        return x + self.linear2(nnx.gelu(self.linear1(self.norm2(x))))


class PatchTransformer(nnx.Module):
    """A vision or spectrogram transformer without a classifier.

    Patches that do not overlap are mapped to tokens by one linear map, learned
    positions are added, and pre-norm blocks follow; the features are the mean over the
    normalised tokens. Frames are further patches.

    Args:
        input_shape: of one example, [H, W, C] or [T, H, W, C].
        patch: height and width of a patch; they divide H and W.
        features: width of the tokens.
        depth: number of blocks.
        heads: attention heads; they divide `features`.
        mlp_ratio: width of the blocks' hidden layer in units of `features`.
        dtype: type of the computation, `jnp.bfloat16` for mixed precision. The
            features are never narrower than float32.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        input_shape: of one example.
        out_features: the width of the tokens.
        stage_widths: `features`, once for each block.

    Raises:
        ValueError: if the patches do not tile the input.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import PatchTransformer
        >>> encoder = PatchTransformer((32, 24, 1), (8, 8), rngs=nnx.Rngs(0))
        >>> encoder(jnp.ones((2, 32, 24, 1))).shape
        (2, 64)

    References:
        Dosovitskiy et al., `An Image is Worth 16x16 Words
        <https://arxiv.org/abs/2010.11929>`_, ICLR 2021.

        Gong et al., `AST: Audio Spectrogram Transformer
        <https://arxiv.org/abs/2104.01778>`_, Interspeech 2021.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        patch: tuple[int, int],
        *,
        features: int = 64,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: int = 2,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        ranked = len(input_shape) in (3, 4)
        if not ranked or input_shape[-3] % patch[0] or input_shape[-2] % patch[1]:
            raise ValueError(
                "PatchTransformer: input_shape must be [H, W, C] or [T, H, W, C] with "
                f"H and W multiples of the patch {patch}, got {tuple(input_shape)}."
            )
        self.input_shape = tuple(input_shape)
        self.out_features = features
        self.stage_widths = (features,) * depth
        self.patches = nnx.Conv(
            input_shape[-1],
            features,
            kernel_size=patch,
            strides=patch,
            padding="VALID",
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        tokens = math.prod(input_shape[:-1]) // math.prod(patch)
        positions = 0.02 * jax.random.normal(rngs.params(), (tokens, features))
        self.positions = nnx.Param(positions.astype(param_dtype))
        self.blocks = nnx.List(
            Block(
                features,
                heads,
                mlp_ratio,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for _ in range(depth)
        )
        self.norm = nnx.LayerNorm(
            features, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )

    def embed(self, x: jax.Array) -> jax.Array:
        """Tokens with their positions.

        Args:
            x: `[B, *input_shape]`.

        Returns:
            [B, N, features], N the number of patches in all frames.

        Raises:
            ValueError: if the shape is another.
        """
        check_input(x, self.input_shape[-1], "PatchTransformer")
        if x.shape[1:] != self.input_shape:
            raise ValueError(
                "PatchTransformer: x must have shape [B, "
                f"{', '.join(map(str, self.input_shape))}], got {list(x.shape)}."
            )
        tokens = self.patches(x.reshape(-1, *x.shape[-3:]))
        tokens = tokens.reshape(len(x), -1, self.out_features)
        return tokens + self.positions[...].astype(tokens.dtype)[None]

    def stage(self, index: int, x: jax.Array) -> jax.Array:
        """Apply block `index` to tokens [B, N, features], of any number N."""
        return self.blocks[index](x)

    def pool(self, x: jax.Array) -> jax.Array:
        """Mean over normalised tokens: to [B, features], float32 or wider."""
        return global_mean(self.norm(x))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of images, frames or spectrograms.

        Args:
            x: `[B, *input_shape]`.

        Returns:
            [B, features], float32 or wider.

        Raises:
            ValueError: if the shape is another.
        """
        x = self.embed(x)
        for index in range(len(self.stage_widths)):
            x = self.stage(index, x)
        return self.pool(x)
