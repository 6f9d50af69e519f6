"""The optimiser that follows the combination, whatever the method."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax.training._config import Config


def optimizer(config: Config) -> optax.GradientTransformation:
    """What follows the combination: weight decay, SGD with momentum.

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
        optax.add_decayed_weights(config.weight_decay),
        optax.inject_hyperparams(sgd)(peak=config.lr),
    )
