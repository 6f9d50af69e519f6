"""The methods of ``--method``: how stacked gradients become one update."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import optax

import mmpareto_jax as mmp
from mmpareto_jax.training._config import Config

Groups = mmp.ObjectiveGroups


def _uniform_gamma(groups: Groups, config: Config) -> optax.GradientTransformation:
    """The control: the plain sum with the encoders' learning rate times γ."""
    scaled = mmp.Weighting(
        lambda _: (), lambda gramian, s: (config.gamma * jnp.ones_like(gramian[0]), s)
    )
    return mmp.aggregate(scaled, groups)


_METHODS: dict[str, Callable[[Groups, Config], optax.GradientTransformation]] = {
    # With "joint" the task cuts the unimodal heads off: one objective per encoder.
    "joint": lambda groups, _: mmp.aggregate(mmp.weightings.uniform(), groups),
    "uniform": lambda groups, _: mmp.aggregate(mmp.weightings.uniform(), groups),
    "uniform-gamma": _uniform_gamma,
    "pareto": lambda groups, _: mmp.aggregate(mmp.weightings.mgda(), groups),
    "mmpareto": lambda groups, config: mmp.mmpareto(
        groups, gamma=config.gamma, variant=config.variant
    ),
}


def optimizer(groups: Groups, config: Config) -> optax.GradientTransformation:
    """The whole chain: combination, weight decay, SGD with momentum.

    Weight decay comes after the combination, so γ does not scale it, as in the
    official code.
    """
    lr: optax.ScalarOrSchedule = config.lr
    if config.schedule == "cosine":
        lr = optax.cosine_decay_schedule(config.lr, config.num_steps)
    return optax.chain(
        _METHODS[config.method](groups, config),
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(lr, momentum=config.momentum),
    )
