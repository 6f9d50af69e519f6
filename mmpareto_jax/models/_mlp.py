"""An encoder of plain features: a multilayer perceptron in stages."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import batch_norm, global_mean, he_normal


class MLP(nnx.Module):
    """A multilayer perceptron: features of an example to features of a modality.

    One stage per width: a linear map without bias, BatchNorm, ReLU; then dropout.
    Initialisation and BatchNorm are those of `ResNet18`.

    Args:
        in_features: width of the input.
        widths: of the stages.
        dropout: probability to drop a feature; 0 draws no random numbers.
        dtype: type of the computation, `jnp.bfloat16` for mixed precision; `None`
            promotes input and parameters. BatchNorm's statistics and the features are
            never narrower than float32.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys, and the `dropout` stream if `dropout` is not 0.

    Attributes:
        in_features: width of the input.
        out_features: the last of the widths.
        stage_widths: the widths.

    Raises:
        ValueError: if `widths` is empty.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import MLP
        >>> encoder = MLP(12, widths=(16, 8), rngs=nnx.Rngs(0))
        >>> encoder(jnp.ones((2, 12))).shape  # [B, F]
        (2, 8)
    """

    def __init__(
        self,
        in_features: int,
        widths: Sequence[int] = (64, 64, 64),
        *,
        dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not widths:
            raise ValueError("MLP: widths must name at least one stage, got none.")
        self.in_features = in_features
        self.out_features = widths[-1]
        self.stage_widths = tuple(widths)
        self.linears = nnx.List(
            nnx.Linear(
                before,
                after,
                use_bias=False,
                kernel_init=he_normal,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for before, after in zip((in_features, *widths), widths, strict=False)
        )
        self.norms = nnx.List(
            batch_norm(width, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            for width in widths
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs if dropout else None)

    def embed(self, x: jax.Array) -> jax.Array:
        """The input as it is, once its shape is checked.

        Args:
            x: [B, in_features].

        Returns:
            x.

        Raises:
            ValueError: if the shape is another.
        """
        if x.ndim != 2 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"MLP: x must have shape [B, {self.in_features}], got {list(x.shape)}."
            )
        return x

    def stage(self, index: int, x: jax.Array) -> jax.Array:
        """Apply one stage.

        Args:
            index: which.
            x: the features before it, [B, C].

        Returns:
            The features after it, [B, stage_widths[index]].
        """
        y: jax.Array = nnx.relu(self.norms[index](self.linears[index](x)))
        return y

    def pool(self, x: jax.Array) -> jax.Array:
        """Dropout alone: to [B, widths[-1]], float32 or wider."""
        return self.dropout(global_mean(x))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of examples.

        Args:
            x: [B, in_features].

        Returns:
            [B, widths[-1]], float32 or wider.

        Raises:
            ValueError: if the shape is another.
        """
        x = self.embed(x)
        for index in range(len(self.stage_widths)):
            x = self.stage(index, x)
        return self.pool(x)
