"""An encoder of series: convolutions over time."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import batch_norm, conv, global_mean


class TemporalCNN(nnx.Module):
    """Convolutions over time: series of several channels to features.

    One block per width: a convolution over five steps, BatchNorm, ReLU. The first block
    keeps the number of steps, each later one halves it (rounding up); the features are
    the mean over all steps, then dropout. Initialisation and BatchNorm are those of
    `ResNet18`.

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
        >>> from mmpareto_jax.models import TemporalCNN
        >>> encoder = TemporalCNN(3, widths=(4, 8), rngs=nnx.Rngs(0))
        >>> encoder(jnp.ones((2, 50, 3))).shape  # [B, T, C]
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
            raise ValueError(
                "TemporalCNN: widths must name at least one block, got none."
            )
        self.in_channels = in_channels
        self.out_features = widths[-1]
        self.stage_widths = tuple(widths)
        self.convs = nnx.List(
            conv(
                before,
                after,
                5,
                stride=2 if block else 1,
                axes=1,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for block, (before, after) in enumerate(
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
            x: series [B, T, in_channels].

        Returns:
            x.

        Raises:
            ValueError: if the rank or the number of channels is another.
        """
        if x.ndim != 3 or x.shape[-1] != self.in_channels:
            raise ValueError(
                f"TemporalCNN: x must have shape [B, T, {self.in_channels}], got "
                f"{list(x.shape)}."
            )
        return x

    def stage(self, index: int, x: jax.Array) -> jax.Array:
        """Apply one block.

        Args:
            index: which.
            x: the series before it, [B, t, C].

        Returns:
            The series after it, with `stage_widths[index]` channels.
        """
        y: jax.Array = nnx.relu(self.norms[index](self.convs[index](x)))
        return y

    def pool(self, x: jax.Array) -> jax.Array:
        """Mean over steps, then dropout: to [B, widths[-1]]."""
        return self.dropout(global_mean(x))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of series.

        Args:
            x: [B, T, in_channels].

        Returns:
            [B, widths[-1]], float32 or wider.

        Raises:
            ValueError: if the rank or the number of channels is another.
        """
        x = self.embed(x)
        for index in range(len(self.stage_widths)):
            x = self.stage(index, x)
        return self.pool(x)
