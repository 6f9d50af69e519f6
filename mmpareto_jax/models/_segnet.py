"""A SegNet-like encoder and decoder: images to a map of features for every pixel."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import batch_norm, check_input, conv, max_pool_2


class SegNet(nnx.Module):
    """Convolutions down to a coarse map and, mirrored, up again: features per pixel.

    A stage down is a 3x3 convolution, BatchNorm, ReLU and 2x2 max pooling; a stage up
    doubles the resolution and then does the same without pooling. Different from
    SegNet, a pixel is repeated on the way up instead of going back to where its maximum
    was, and a stage has one convolution.

    Args:
        in_channels: channels of the input.
        widths: channels of the stages down; the stages up have them in reverse.
        dtype: type of the computation, `jnp.bfloat16` for mixed precision; `None`
            promotes input and parameters. BatchNorm's statistics and the features are
            never narrower than float32.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        in_channels: channels of the input.
        out_features: channels of the features, the first of the widths.
        stage_widths: channels after every stage, down and up.

    Raises:
        ValueError: if `widths` is empty.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import SegNet
        >>> trunk = SegNet(3, widths=(4, 8), rngs=nnx.Rngs(0))
        >>> trunk(jnp.ones((2, 16, 24, 3))).shape
        (2, 16, 24, 4)

    References:
        Badrinarayanan, Kendall & Cipolla, `SegNet: A Deep Convolutional
        Encoder-Decoder Architecture for Image Segmentation
        <https://arxiv.org/abs/1511.00561>`_, PAMI 2017.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (16, 32, 64),
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not widths:
            raise ValueError("SegNet: widths must name at least one stage, got none.")
        self.in_channels = in_channels
        self.out_features = widths[0]
        up = (*reversed(widths[:-1]), widths[0])
        self.stage_widths = (*widths, *up)
        befores = (in_channels, *self.stage_widths)
        self.convs = nnx.List(
            conv(before, after, 3, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            for before, after in zip(befores, self.stage_widths, strict=False)
        )
        self.norms = nnx.List(
            batch_norm(width, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            for width in self.stage_widths
        )

    def embed(self, x: jax.Array) -> jax.Array:
        """The input as it is, once its shape is checked.

        Args:
            x: images [B, H, W, in_channels].

        Returns:
            x.

        Raises:
            ValueError: if rank or channels are others, or the stages down do not divide
                height and width.
        """
        check_input(x, self.in_channels, "SegNet")
        step = 2 ** (len(self.stage_widths) // 2)
        if x.ndim != 4 or x.shape[1] % step or x.shape[2] % step:
            raise ValueError(
                f"SegNet: height and width of x must be multiples of {step}, got shape "
                f"{list(x.shape)}."
            )
        return x

    def stage(self, index: int, x: jax.Array) -> jax.Array:
        """Apply one stage.

        Args:
            index: which; the later half leads up.
            x: the map before it, [B, h, w, C].

        Returns:
            The map after it, with half or twice the height and width.
        """
        down = index < len(self.stage_widths) // 2
        if not down:
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        x = nnx.relu(self.norms[index](self.convs[index](x)))
        return max_pool_2(x) if down else x

    def pool(self, x: jax.Array) -> jax.Array:
        """The map as it is, in float32 or wider: [B, H, W, out_features]."""
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of every pixel.

        Args:
            x: images [B, H, W, in_channels].

        Returns:
            [B, H, W, out_features], float32 or wider.

        Raises:
            ValueError: if rank or channels are others, or the stages down do not divide
                height and width.
        """
        x = self.embed(x)
        for index in range(len(self.stage_widths)):
            x = self.stage(index, x)
        return self.pool(x)
