"""Layers and input handling that the convolutional encoders share."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

_Args = TypeVar("_Args", bound=tuple[Any, ...])

# He initialisation over the fan out, not truncated, as torch's kaiming_normal_.
he_normal = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(
    in_features: int,
    out_features: int,
    size: int,
    *,
    stride: int = 1,
    axes: int = 2,
    dtype: DTypeLike | None,
    param_dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution without bias, as wide on every axis, padded by `size // 2`.

    Flax's `"SAME"` pads a strided convolution unevenly; PyTorch pads both sides
    alike, which moves every sampling point by a pixel.

    Args:
        in_features: channels in.
        out_features: channels out.
        size: of the kernel, on every axis.
        stride: step between the outputs.
        axes: how many axes it runs over: of images 2, of series 1.
        dtype: type of the computation; `None` promotes input and parameters.
        param_dtype: type of the kernel.
        rngs: gives the `params` key.

    Returns:
        The convolution.
    """
    return nnx.Conv(
        in_features,
        out_features,
        kernel_size=(size,) * axes,
        strides=stride,
        padding=[(size // 2, size // 2)] * axes,
        use_bias=False,
        kernel_init=he_normal,
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )


def _keep_dtypes(
    args: _Args,
    /,
    *,
    dtype: Any = None,  # noqa: ARG001  (flax's signature)
    inexact: bool = True,  # noqa: ARG001
) -> _Args:
    """Promote nothing: float32 statistics lift the arithmetic to float32."""
    return args


def batch_norm(
    features: int,
    *,
    dtype: DTypeLike | None,
    param_dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> nnx.BatchNorm:
    """`flax.nnx.BatchNorm` with PyTorch's default constants.

    Momentum 0.9 (torch writes 0.1), epsilon 1e-5, two-pass variance. One convention
    differs: torch stores the unbiased batch variance (n / (n - 1)) in the running
    variance, flax the biased one that it also normalises by. Statistics and the affine
    step stay in float32 (or wider) whatever `dtype` is; only the result is cast.

    Args:
        features: channels.
        dtype: type of the result.
        param_dtype: type of scale and bias; the running statistics have this type too,
            but never less than float32.
        rngs: gives the `params` key.

    Returns:
        The normalisation, in training mode.
    """
    layer = nnx.BatchNorm(
        features,
        momentum=0.9,
        epsilon=1e-5,
        use_fast_variance=False,
        promote_dtype=_keep_dtypes,
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )
    # Flax creates float32 statistics, whatever param_dtype is, and would round those of
    # a float64 model to it (with a warning).
    statistics_dtype = jnp.promote_types(param_dtype, jnp.float32)
    for statistic in (layer.mean, layer.var):
        statistic.set_value(statistic.get_value().astype(statistics_dtype))
    return layer


def check_input(x: jax.Array, in_channels: int, encoder: str) -> None:
    """Check that `x` is a batch of images or of frames.

    Args:
        x: the input of an encoder.
        in_channels: what its last axis has to be.
        encoder: the name that the message gives.

    Raises:
        ValueError: if `x` is not [B, H, W, in_channels] or [B, T, H, W, in_channels].
    """
    if x.ndim not in (4, 5) or x.shape[-1] != in_channels:
        raise ValueError(
            f"{encoder}: x must have shape [B, H, W, {in_channels}] or "
            f"[B, T, H, W, {in_channels}], got {list(x.shape)}."
        )


def per_frame(layer: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Apply a layer on [N, H, W, C] to images [B, H, W, C] or frames [B, T, H, W, C].

    Frames are folded into the batch.
    """
    y = layer(x.reshape(-1, *x.shape[-3:]))
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def global_mean(x: jax.Array) -> jax.Array:
    """Mean over all axes but the first and the last, in float32 or wider.

    Args:
        x: a feature map, [B, h, w, C] or [B, T, h, w, C]; of a series, [B, t, C]; or
            features [B, C], which stay as they are.

    Returns:
        Features [B, C].
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)), dtype=wide)


def max_pool_2(x: jax.Array) -> jax.Array:
    """2x2 max pooling of [B, H, W, C], rounding down."""
    y: jax.Array = nnx.max_pool(x, (2, 2), strides=(2, 2))
    return y
