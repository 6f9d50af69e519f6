"""Balanced learning: which branch of an MMTM network is trained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mmpareto_jax.models import MMTM, Control, MultimodalClassifier
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods._baselines import greedy as _greedy
from mmpareto_jax.training._methods.base import Method
from mmpareto_jax.training._methods.joint import joint_only

_WINDOW = 5


def greedy(config: Config) -> Method:
    epsilon = 0.01 if config.alpha is None else config.alpha

    def memory(outputs: Any) -> Any:
        if len(outputs.features) != 2:
            raise ValueError(
                f"method: greedy compares two modalities, got {list(outputs.features)}"
            )
        return _greedy.not_greedy_yet()

    def advance(memory: Any, params: Any, grads: Any) -> Any:
        return _greedy.watch(
            memory,
            *relative_squares(params, grads),
            epsilon=epsilon,
            window=_WINDOW,
            start=2 * config.steps_per_epoch,
        )

    def steer(rest: Any, memory: Any) -> Any:
        return nnx.map_state(
            lambda _, x: x.replace(memory.care) if isinstance(x, Control) else x, rest
        )

    return joint_only(fusion="mmtm", memory=memory, advance=advance, steer=steer)


def relative_squares(params: Any, grads: Any) -> tuple[jax.Array, jax.Array]:
    """Squared gradients relative to squared parameters, of a model with an MMTM.

    Args:
      params: the model's.
      grads: of the same structure.

    Returns:
      [M] of what each modality takes from the others; [M] of its encoder.
    """
    # Sorted, which is the models' own order of two modalities.
    encoders = [x for x in sorted(params) if MultimodalClassifier.modality_of(x)]

    def squares(tree: Any) -> tuple[jax.Array, jax.Array]:
        """Of every modality's exchange and encoder, [M] each."""
        exchange = [
            sum(map(_squares, MMTM.exchange_of(tree["interaction"], number)))
            for number in range(len(encoders))
        ]
        branch = [_squares(tree[encoder]) for encoder in encoders]
        return jnp.stack(exchange), jnp.stack(branch)

    above, below = squares(grads), squares(params)
    return above[0] / below[0], above[1] / below[1]


def _squares(tree: Any) -> jax.Array:
    return jnp.sum(jnp.stack([jnp.sum(x**2) for x in jax.tree.leaves(tree)]))
