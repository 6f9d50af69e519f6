"""Several tasks of one input: a sharing and a head for each task."""

from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import conv
from mmpareto_jax.models._multimodal import Outputs, wide
from mmpareto_jax.models._sharing import HardSharing


class Sharing(Protocol):
    """What a model asks of a sharing: one input to the features of every task.

    Attributes:
        out_features: the width of the features.
    """

    out_features: int

    def __call__(self, x: jax.Array, /) -> list[jax.Array]:
        """Map a batch of inputs to features [B, ..., out_features], for each task."""
        ...


class DenseHead(nnx.Module):
    """A prediction for every pixel: 3x3 convolution, ReLU, 1x1 convolution with bias.

    Args:
        in_features: channels of the features.
        out_channels: channels of the prediction.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.
    """

    def __init__(
        self,
        in_features: int,
        out_channels: int,
        *,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = conv(
            in_features, in_features, 3, dtype=None, param_dtype=param_dtype, rngs=rngs
        )
        self.linear = nnx.Linear(
            in_features, out_channels, param_dtype=param_dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map features [B, H, W, in_features] to [B, H, W, out_channels]."""
        y: jax.Array = self.linear(nnx.relu(self.conv(x)))
        return y


class MultitaskModel(nnx.Module):
    """A prediction for each task from one input.

    Which tasks reach which parameters is decided by the sharing, and found by
    `mmpareto_jax.objective_groups`: with `HardSharing` all tasks reach the trunk and
    each its own head; with `Separate` nothing is shared.

    Args:
        sharing: a module that maps inputs to a list of features, one for each task, and
            has the attribute `out_features`.
        heads: task -> a module that maps its features to its prediction, in the order
            of the sharing.

    Attributes:
        tasks: the names.
        sharing: what was passed.
        X_head: the head of task X.

    Raises:
        ValueError: if there is no task.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import HardSharing, LeNet, MultitaskModel
        >>> rngs = nnx.Rngs(0)
        >>> model = MultitaskModel(
        ...     HardSharing(LeNet((12, 12, 1), features=16, rngs=rngs), 2),
        ...     {name: nnx.Linear(16, 10, rngs=rngs) for name in ("left", "right")},
        ... )
        >>> logits = model(jnp.ones((2, 12, 12, 1)))
        >>> {name: z.shape for name, z in logits.items()}
        {'left': (2, 10), 'right': (2, 10)}
    """

    def __init__(
        self,
        sharing: Sharing,
        heads: Mapping[str, Callable[[jax.Array], jax.Array]],
    ):
        if not heads:
            raise ValueError("MultitaskModel: heads must name at least one task.")
        self.tasks = tuple(heads)
        self.sharing = sharing
        for name, head in heads.items():
            setattr(self, f"{name}_head", head)

    def trunk(self, x: jax.Array) -> jax.Array:
        """The features that all tasks share.

        Args:
            x: what the trunk takes.

        Returns:
            [B, ..., out_features].

        Raises:
            ValueError: if the sharing is not `HardSharing`: there are no such features.
        """
        if not isinstance(self.sharing, HardSharing):
            raise ValueError(
                "MultitaskModel: only with HardSharing all tasks have the same "
                f"features, not with {type(self.sharing).__name__}."
            )
        return self.sharing.trunk(x)

    def heads(self, features: list[jax.Array] | jax.Array) -> Outputs:
        """The predictions from features.

        Args:
            features: of each task, or those that all share.

        Returns:
            Predictions by task, float32 or wider, as `logits`.
        """
        if not isinstance(features, list):
            features = [features] * len(self.tasks)
        found = {
            name: getattr(self, f"{name}_head")(x)
            for name, x in zip(self.tasks, features, strict=True)
        }
        return Outputs(wide(found), {}, {})

    def outputs(self, x: jax.Array) -> Outputs:
        """The predictions from inputs, see `heads`."""
        return self.heads(self.sharing(x))

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Task -> prediction."""
        return self.outputs(x).logits
