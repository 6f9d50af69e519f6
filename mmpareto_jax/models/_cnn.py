"""A small convolutional encoder, for jobs that should run on a CPU."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import (
    batch_norm,
    check_input,
    conv,
    global_mean,
    per_frame,
)


class SmallCNN(nnx.Module):
    """A stack of 3x3 convolutions: small images or frames to features.

    One block per width: convolution, BatchNorm, ReLU. The first block keeps the
    resolution, each later one halves it (rounding up), so 8x8 digits and 32x32
    spectrograms both fit. Frames are folded into the batch; the features are the mean
    over all frames and positions, then dropout. Initialisation and BatchNorm are those
    of `ResNet18`.

    Args:
        in_channels: channels of the input.
        widths: channels of the blocks.
        dropout: probability to drop a feature; 0 draws no random numbers.
        dtype: type of the computation, `jnp.bfloat16` for mixed precision; `None`
            promotes input and parameters. BatchNorm's statistics and the features are
            never narrower than float32.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys, and the `dropout` stream if `dropout` is not 0.

    Attributes:
        in_channels: channels of the input.
        out_features: the last of the widths.
        stage_widths: the widths.

    Raises:
        ValueError: if `widths` is empty.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import SmallCNN
        >>> encoder = SmallCNN(1, widths=(4, 8), rngs=nnx.Rngs(0))
        >>> encoder(jnp.ones((2, 32, 32, 1))).shape  # [B, H, W, C]
        (2, 8)
        >>> encoder(jnp.ones((2, 3, 8, 8, 1))).shape  # [B, T, H, W, C]
        (2, 8)
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (16, 32, 64),
        *,
        dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not widths:
            raise ValueError("SmallCNN: widths must name at least one block, got none.")
        self.in_channels = in_channels
        self.out_features = widths[-1]
        self.stage_widths = tuple(widths)
        self.convs = nnx.List(
            conv(
                features,
                width,
                3,
                stride=2 if block else 1,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for block, (features, width) in enumerate(
                zip((in_channels, *widths), widths, strict=False)
            )
        )
        self.norms = nnx.List(
            batch_norm(width, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            for width in widths
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs if dropout else None)

    def embed(self, x: jax.Array) -> jax.Array:
        """The input as it is, once its shape is checked.

        Args:
            x: images [B, H, W, in_channels] or frames [B, T, H, W, in_channels].

        Returns:
            x.

        Raises:
            ValueError: if the rank or the number of channels is another.
        """
        check_input(x, self.in_channels, "SmallCNN")
        return x

    def stage(self, index: int, x: jax.Array) -> jax.Array:
        """Apply one block.

        Args:
            index: which.
            x: the map before it, [B, h, w, C] or [B, T, h, w, C].

        Returns:
            The map after it, with `stage_widths[index]` channels.
        """
        convolution, norm = self.convs[index], self.norms[index]
        return per_frame(lambda x: nnx.relu(norm(convolution(x))), x)

    def pool(self, x: jax.Array) -> jax.Array:
        """Mean over frames and positions, then dropout: to [B, widths[-1]]."""
        return self.dropout(global_mean(x))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of images or frames.

        Args:
            x: images [B, H, W, in_channels] or frames [B, T, H, W, in_channels].

        Returns:
            [B, widths[-1]], float32 or wider.

        Raises:
            ValueError: if the rank or the number of channels is another.
        """
        x = self.embed(x)
        for index in range(len(self.stage_widths)):
            x = self.stage(index, x)
        return self.pool(x)
