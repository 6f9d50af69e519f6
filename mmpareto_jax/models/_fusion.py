"""Fusions that add: the joint logits are a sum over modalities."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

# torch's xavier_normal_, with which the official code starts its linear layers; flax's
# own xavier_normal is truncated.
xavier_normal = nnx.initializers.variance_scaling(1.0, "fan_avg", "normal")


class ConcatFusion(nnx.Module):
    r"""Late fusion: concatenate the features, then one linear map.

    .. math::
        z = [f^1, \dots, f^M] W + b.

    Args:
        in_features: the width of each modality's features, in their order.
        num_classes: the number of logits.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        in_features: the widths, a tuple.
        linear: the linear map, [sum(in_features), num_classes].

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import ConcatFusion
        >>> fusion = ConcatFusion((4, 2), num_classes=3, rngs=nnx.Rngs(0))
        >>> fusion([jnp.ones((5, 4)), jnp.ones((5, 2))]).shape
        (5, 3)

    References:
        Wei & Hu, `MMPareto: Boosting Multimodal Learning with Innocent Unimodal
        Assistance <https://arxiv.org/abs/2405.17730>`_, ICML 2024.
    """

    def __init__(
        self,
        in_features: Sequence[int],
        num_classes: int,
        *,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = tuple(in_features)
        self.linear = xavier_linear(
            sum(self.in_features), num_classes, param_dtype, rngs
        )

    def __call__(self, features: Sequence[jax.Array]) -> jax.Array:
        """Joint logits.

        Args:
            features: one array [B, in_features[m]] per modality m.

        Returns:
            [B, num_classes].

        Raises:
            ValueError: if the number of arrays or one of their widths is another.
        """
        check_widths(features, self.in_features, "ConcatFusion")
        return self.linear(jnp.concatenate(features, axis=-1))

    def parts(self, features: Sequence[jax.Array]) -> list[jax.Array]:
        """What each modality adds to the logits, with an equal share of the bias.

        Args:
            features: one array [B, in_features[m]] per modality m.

        Returns:
            One array [B, num_classes] per modality; their sum is the logits.
        """
        ends = list(itertools.accumulate(self.in_features))[:-1]
        kernels = jnp.split(self.linear.kernel[...], ends)
        assert self.linear.bias is not None
        bias = self.linear.bias[...] / len(kernels)
        return [x @ w + bias[None] for x, w in zip(features, kernels, strict=True)]


class SumFusion(nnx.Module):
    r"""Late fusion: the sum of one linear map for each modality.

    .. math::
        z = \sum_m f^m W_m + b_m.

    `ConcatFusion` computes the same functions; the initialisation differs, for each
    map's variance comes from its own width here.

    Args:
        in_features: the width of each modality's features, in their order.
        num_classes: the number of logits.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        in_features: the widths, a tuple.
        linears: the linear maps, one per modality.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import SumFusion
        >>> fusion = SumFusion((4, 2), num_classes=3, rngs=nnx.Rngs(0))
        >>> fusion([jnp.ones((5, 4)), jnp.ones((5, 2))]).shape
        (5, 3)
    """

    def __init__(
        self,
        in_features: Sequence[int],
        num_classes: int,
        *,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = tuple(in_features)
        self.linears = nnx.List(
            xavier_linear(width, num_classes, param_dtype, rngs)
            for width in in_features
        )

    def __call__(self, features: Sequence[jax.Array]) -> jax.Array:
        """Joint logits.

        Args:
            features: one array [B, in_features[m]] per modality m.

        Returns:
            [B, num_classes].

        Raises:
            ValueError: if the number of arrays or one of their widths is another.
        """
        check_widths(features, self.in_features, "SumFusion")
        first, *others = self.parts(features)
        return sum(others, start=first)

    def parts(self, features: Sequence[jax.Array]) -> list[jax.Array]:
        """What each modality adds to the logits.

        Args:
            features: one array [B, in_features[m]] per modality m.

        Returns:
            One array [B, num_classes] per modality; their sum is the logits.
        """
        return [f(x) for f, x in zip(self.linears, features, strict=True)]


class CosineFusion(nnx.Module):
    r"""MMCosine: every modality votes by the angle to each class, not by its norm.

    .. math::
        z_c = s \sum_m \frac{\langle f^m, W^m_c \rangle}{\|f^m\| \|W^m_c\|}.

    Args:
        in_features: the width of each modality's features, in their order.
        num_classes: the number of logits.
        scale: s.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        in_features: the widths, a tuple.
        scale: s.
        kernels: the class vectors [in_features[m], num_classes], one per modality.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import CosineFusion
        >>> fusion = CosineFusion((4, 2), num_classes=3, rngs=nnx.Rngs(0))
        >>> features = [jnp.ones((1, 4)), jnp.ones((1, 2))]
        >>> bool(jnp.allclose(fusion(features), fusion([10 * x for x in features])))
        True

    References:
        Xu et al., `MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual
        Fine-Grained Learning <https://arxiv.org/abs/2303.05338>`_, ICASSP 2023.
    """

    def __init__(
        self,
        in_features: Sequence[int],
        num_classes: int,
        *,
        scale: float = 10.0,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = tuple(in_features)
        self.scale = scale
        self.kernels = nnx.List(
            nnx.Param(xavier_normal(rngs.params(), (width, num_classes), param_dtype))
            for width in in_features
        )

    def __call__(self, features: Sequence[jax.Array]) -> jax.Array:
        """Joint logits.

        Args:
            features: one array [B, in_features[m]] per modality m.

        Returns:
            [B, num_classes], between -scale · M and scale · M.

        Raises:
            ValueError: if the number of arrays or one of their widths is another.
        """
        check_widths(features, self.in_features, "CosineFusion")
        first, *others = self.parts(features)
        return sum(others, start=first)

    def parts(self, features: Sequence[jax.Array]) -> list[jax.Array]:
        """What each modality adds to the logits.

        Args:
            features: one array [B, in_features[m]] per modality m.

        Returns:
            One array [B, num_classes] per modality; their sum is the logits.
        """
        return [
            self.scale * (_unit(x, axis=-1) @ _unit(kernel[...], axis=0))
            for x, kernel in zip(features, self.kernels, strict=True)
        ]


def check_widths(
    features: Sequence[jax.Array], in_features: tuple[int, ...], fusion: str
) -> None:
    """Check the number of modalities and their widths.

    Raises:
        ValueError: if one is another.
    """
    widths = tuple(f.shape[-1] for f in features)
    if widths != in_features:
        raise ValueError(
            f"{fusion}: features must have the widths {in_features}, got {widths}."
        )


def xavier_linear(
    in_features: int, out_features: int, param_dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Linear:
    return nnx.Linear(
        in_features,
        out_features,
        kernel_init=xavier_normal,
        param_dtype=param_dtype,
        rngs=rngs,
    )


def _unit(x: jax.Array, axis: int) -> jax.Array:
    """Vectors along `axis` at length 1; zero vectors stay, with a gradient of zero."""
    square = jnp.sum(x * x, axis=axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
