"""Fusions in which the first modality acts on the others."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._fusion import check_widths, xavier_linear


class FiLMFusion(nnx.Module):
    r"""Feature-wise linear modulation: the first modality scales and shifts the others.

    .. math::
        z = (\gamma \odot h + \beta) W_o + b_o, \quad
        (\gamma, \beta) = f^1 W_1 + b_1, \quad h = [f^2, \dots, f^M].

    Args:
        in_features: the width of each modality's features, in their order; at least
            two modalities.
        num_classes: the number of logits.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        in_features: the widths, a tuple.
        modulation: the map to scale and shift.
        linear: the map to logits.

    Raises:
        ValueError: if there are fewer than two modalities.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import FiLMFusion
        >>> fusion = FiLMFusion((4, 2), num_classes=3, rngs=nnx.Rngs(0))
        >>> fusion([jnp.ones((5, 4)), jnp.ones((5, 2))]).shape
        (5, 3)

    References:
        Perez et al., `FiLM: Visual Reasoning with a General Conditioning Layer
        <https://arxiv.org/abs/1709.07871>`_, AAAI 2018.
    """

    def __init__(
        self,
        in_features: Sequence[int],
        num_classes: int,
        *,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = _several(in_features, "FiLMFusion")
        width = sum(self.in_features[1:])
        self.modulation = xavier_linear(
            self.in_features[0], 2 * width, param_dtype, rngs
        )
        self.linear = xavier_linear(width, num_classes, param_dtype, rngs)

    def __call__(self, features: Sequence[jax.Array]) -> jax.Array:
        """Joint logits.

        Args:
            features: one array [B, in_features[m]] per modality m.

        Returns:
            [B, num_classes].

        Raises:
            ValueError: if the number of arrays or one of their widths is another.
        """
        check_widths(features, self.in_features, "FiLMFusion")
        scale, shift = jnp.split(self.modulation(features[0]), 2, axis=-1)
        return self.linear(scale * jnp.concatenate(features[1:], axis=-1) + shift)


class GatedFusion(nnx.Module):
    r"""Gated bilinear fusion: the first modality opens and closes the others' units.

    .. math::
        z = \Big(\sigma(f^1 W_1 + b_1) \odot \sum_{m > 1} (f^m W_m + b_m)\Big)
        W_o + b_o.

    Args:
        in_features: the width of each modality's features, in their order; at least
            two modalities.
        num_classes: the number of logits.
        hidden: width of the gated units.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        in_features: the widths, a tuple.
        linears: the maps to the gated units, one per modality.
        linear: the map to logits.

    Raises:
        ValueError: if there are fewer than two modalities.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import GatedFusion
        >>> fusion = GatedFusion((4, 2), num_classes=3, hidden=8, rngs=nnx.Rngs(0))
        >>> fusion([jnp.ones((5, 4)), jnp.ones((5, 2))]).shape
        (5, 3)

    References:
        Kiela et al., `Efficient Large-Scale Multi-Modal Classification
        <https://arxiv.org/abs/1802.02892>`_, AAAI 2018.
    """

    def __init__(
        self,
        in_features: Sequence[int],
        num_classes: int,
        *,
        hidden: int = 128,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_features = _several(in_features, "GatedFusion")
        self.linears = nnx.List(
            xavier_linear(width, hidden, param_dtype, rngs) for width in in_features
        )
        self.linear = xavier_linear(hidden, num_classes, param_dtype, rngs)

    def __call__(self, features: Sequence[jax.Array]) -> jax.Array:
        """Joint logits.

        Args:
            features: one array [B, in_features[m]] per modality m.

        Returns:
            [B, num_classes].

        Raises:
            ValueError: if the number of arrays or one of their widths is another.
        """
        check_widths(features, self.in_features, "GatedFusion")
        gate, first, *others = (
            f(x) for f, x in zip(self.linears, features, strict=True)
        )
        return self.linear(nnx.sigmoid(gate) * sum(others, start=first))


def _several(in_features: Sequence[int], fusion: str) -> tuple[int, ...]:
    if len(in_features) < 2:
        raise ValueError(
            f"{fusion}: in_features must name at least two modalities, "
            f"got {tuple(in_features)}."
        )
    return tuple(in_features)
