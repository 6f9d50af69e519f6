"""A LeNet-like trunk, as multi-task learning on digits uses it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import check_input, conv, max_pool_2


class LeNet(nnx.Module):
    """Two 5x5 convolutions with pooling, and a linear layer: images to features.

    Each convolution keeps the resolution and is followed by ReLU and 2x2 max pooling
    (rounding down); then everything is flattened. No normalisation, as in the trunk
    that multi-task papers use on MultiMNIST.

    Args:
        shape: [H, W, C] of an image; the linear layer depends on it.
        widths: channels of the convolutions.
        features: width of the features.
        dtype: type of the computation, `jnp.bfloat16` for mixed precision; `None`
            promotes input and parameters.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        shape: [H, W, C].
        out_features: width of the features.
        stage_widths: the widths.

    Raises:
        ValueError: if nothing is left of the image after pooling.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import LeNet
        >>> trunk = LeNet((12, 12, 1), features=16, rngs=nnx.Rngs(0))
        >>> trunk(jnp.ones((2, 12, 12, 1))).shape
        (2, 16)

    References:
        LeCun et al., Gradient-Based Learning Applied to Document Recognition,
        Proceedings of the IEEE 1998.

        Sener & Koltun, `Multi-Task Learning as Multi-Objective Optimization
        <https://arxiv.org/abs/1810.04650>`_, NeurIPS 2018, section 5.1.
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int] = (10, 20),
        features: int = 50,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        height, width, channels = shape
        left = (height >> len(widths)) * (width >> len(widths))
        if not left:
            raise ValueError(
                f"LeNet: shape must leave something after {len(widths)} poolings, "
                f"got {list(shape)}."
            )
        self.shape = tuple(shape)
        self.out_features = features
        self.stage_widths = tuple(widths)
        self.convs = nnx.List(
            conv(before, after, 5, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
            for before, after in zip((channels, *widths), widths, strict=False)
        )
        self.linear = nnx.Linear(
            left * widths[-1],
            features,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def embed(self, x: jax.Array) -> jax.Array:
        """The input as it is, once its shape is checked.

        Args:
            x: images [B, H, W, C].

        Returns:
            x.

        Raises:
            ValueError: if the images have another shape.
        """
        check_input(x, self.shape[-1], "LeNet")
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"LeNet: x must have shape [B, {', '.join(map(str, self.shape))}], got "
                f"{list(x.shape)}."
            )
        return x

    def stage(self, index: int, x: jax.Array) -> jax.Array:
        """Apply one convolution and its pooling.

        Args:
            index: which.
            x: the map before it, [B, h, w, C].

        Returns:
            The map after it, [B, h // 2, w // 2, stage_widths[index]].
        """
        return max_pool_2(nnx.relu(self.convs[index](x)))

    def pool(self, x: jax.Array) -> jax.Array:
        """The linear layer and ReLU on the flattened map: to [B, features]."""
        y: jax.Array = nnx.relu(self.linear(x.reshape(len(x), -1)))
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of images.

        Args:
            x: images [B, H, W, C].

        Returns:
            [B, features], float32 or wider.

        Raises:
            ValueError: if the images have another shape.
        """
        x = self.embed(x)
        for index in range(len(self.stage_widths)):
            x = self.stage(index, x)
        return self.pool(x)
