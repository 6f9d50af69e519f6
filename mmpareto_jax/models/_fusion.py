"""Fusions: the features of all modalities to joint logits."""

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
        self.linear = nnx.Linear(
            sum(self.in_features),
            num_classes,
            kernel_init=xavier_normal,
            param_dtype=param_dtype,
            rngs=rngs,
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
        widths = tuple(f.shape[-1] for f in features)
        if widths != self.in_features:
            raise ValueError(
                f"ConcatFusion: features must have the widths {self.in_features}, "
                f"got {widths}."
            )
        return self.linear(jnp.concatenate(features, axis=-1))
