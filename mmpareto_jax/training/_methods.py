"""The methods of ``--method``: how stacked gradients become one update."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

import mmpareto_jax as mmp
from mmpareto_jax.training._config import Config

Groups = mmp.ObjectiveGroups
Rule: TypeAlias = "mmp.Weighting | mmp.LossWeighting | mmp.Aggregator"


def _uniform_gamma(config: Config) -> Rule:
    """The control: the plain sum with the encoders' learning rate times γ."""
    return mmp.Weighting(
        lambda _: (), lambda gramian, s: (config.gamma * jnp.ones_like(gramian[0]), s)
    )


def _mmpareto(config: Config) -> Rule:
    return mmp.weightings.mmpareto(
        config.gamma,
        conflict_test=config.conflict_test,
        magnitude=config.magnitude,
        max_magnitude=config.max_magnitude,
    )


# The methods that take more than their name from the config; the others are the rules
# of the library, as they are by default.
_RULES: dict[str, Callable[[Config], Rule]] = {
    # With "joint" the task cuts the unimodal heads off: one objective per encoder.
    "joint": lambda _: mmp.weightings.uniform(),
    "uniform-gamma": _uniform_gamma,
    "pareto": lambda _: mmp.weightings.mgda(),
    "mmpareto": _mmpareto,
    "dwa": lambda config: mmp.weightings.dwa(steps_per_epoch=config.steps_per_epoch),
}


def combination(
    groups: Groups, config: Config
) -> optax.GradientTransformationExtraArgs:
    """The transformation from stacked gradients to one, with ``losses=``."""
    if config.method == "mmpareto" and config.variant == "official":
        return mmp.mmpareto(groups, gamma=config.gamma, variant="official")
    name = config.method
    if name in _RULES:
        return mmp.aggregate(_RULES[name](config), groups)
    return mmp.aggregate(getattr(mmp.weightings, name.replace("-", "_"))(), groups)


def optimizer(groups: Groups, config: Config) -> optax.GradientTransformationExtraArgs:
    """The whole chain: combination, weight decay, SGD with momentum.

    Weight decay comes after the combination, so γ does not scale it, as in the
    official code. The peak of the learning rate is part of the state: ``optax.tree.set(
    opt_state, peak=...)`` gives another one without another compilation.
    """

    def sgd(peak: jax.Array) -> optax.GradientTransformation:
        lr: optax.ScalarOrSchedule = peak
        if config.schedule == "cosine":
            shape = optax.cosine_decay_schedule(1.0, config.num_steps)

            def lr(step: jax.Array) -> jax.Array:
                return peak * jnp.asarray(shape(step))

        return optax.sgd(lr, momentum=config.momentum)

    return optax.chain(
        combination(groups, config),
        optax.add_decayed_weights(config.weight_decay),
        optax.inject_hyperparams(sgd)(peak=config.lr),
    )
