"""Re-learning: encoders that go back towards their start, between epochs."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np

from mmpareto_jax.data import column
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods._baselines import relearning as _relearning
from mmpareto_jax.training._methods.base import Epoch, Method
from mmpareto_jax.training._methods.joint import encoder_of, joint_only

_EVERY = 5


def relearning(_: Config) -> Method:
    return joint_only(between_epochs=_relearn)


def _relearn(state: Any, epoch: Epoch) -> Any:
    if epoch.number % _EVERY:
        return state
    given, seed = epoch.config.alpha, epoch.config.seed
    train, validation = epoch.data["train"], epoch.data["validation"]
    now, then = epoch.features(state, train), epoch.features(state, validation)
    lost = [m for m in now if not (_is_finite(now[m]) and _is_finite(then[m]))]
    if lost:
        warnings.warn(
            f"relearning: features of {', '.join(lost)} hold NaN or infinity before "
            f"epoch {epoch.number + 1}: nothing of these encoders is reset",
            stacklevel=2,
        )
    strength = dict.fromkeys(lost, 0.0) | {
        m: _relearning.relearning_strength(
            _relearning.purity(now[m], column(train, "label"), seed=seed),
            _relearning.purity(then[m], column(validation, "label"), seed=seed),
            1.0 if given is None else given,
        )
        for m in now
        if m not in lost
    }
    labels = jax.tree.leaves(
        encoder_of(tuple(now), 0)(state.params), is_leaf=lambda x: x is None
    )
    leaves, structure = jax.tree.flatten(state.params)
    reset = [
        x if m is None else _relearning.soft_reset(x, first, strength[m])
        for x, first, m in zip(
            leaves, jax.tree.leaves(epoch.first), labels, strict=True
        )
    ]
    return state._replace(params=jax.tree.unflatten(structure, reset))


def _is_finite(features: Any) -> bool:
    return bool(np.isfinite(features).all())
