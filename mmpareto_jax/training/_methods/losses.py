"""Methods that change what is differentiated: other losses, or weights on them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mmpareto_jax.data import column
from mmpareto_jax.models import Outputs
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods._baselines import blending as _blending
from mmpareto_jax.training._methods._baselines import prototypes as _prototypes
from mmpareto_jax.training._methods.base import Epoch, Losses, Method
from mmpareto_jax.training._methods.joint import joint_only, plain_sum

# Of PMR's entropy term, which acts in the first part of the training only.
_ENTROPY, _EARLY = 0.01, 0.2


def pmr(config: Config) -> Method:
    strength = 1.0 if config.alpha is None else config.alpha

    def memory(outputs: Outputs) -> dict[str, Any]:
        classes = outputs.logits["joint"].shape[-1]
        widths = {m: x.shape[-1] for m, x in outputs.features.items()}
        prototypes = {m: jnp.zeros((classes, n)) for m, n in widths.items()}
        return {"alpha": jnp.zeros(()), "mu": jnp.zeros(()), "prototypes": prototypes}

    def losses(found: Losses, outputs: Outputs, batch: Batch, memory: Any) -> Losses:
        extra = _prototypes.prototype_loss(outputs.features, batch["label"], **memory)
        return found | {"joint": found["joint"] + extra}

    def renew(state: Any, epoch: Epoch) -> Any:
        examples, old = epoch.data["train"], state.memory["prototypes"]
        label = column(examples, "label")
        prototypes = {
            m: jnp.asarray(_prototypes.class_means(x, label, len(old[m])), jnp.float32)
            for m, x in epoch.features(state, examples).items()
        }
        early = epoch.number <= _EARLY * epoch.config.epochs
        memory = {
            "alpha": jnp.asarray(strength, jnp.float32),
            "mu": jnp.asarray(_ENTROPY * early, jnp.float32),
            "prototypes": prototypes,
        }
        return state._replace(memory=memory)

    return joint_only(losses=losses, memory=memory, between_epochs=renew)


_SUPER_EPOCH = 3


def blending(_: Config) -> Method:
    def losses(found: Losses, outputs: Outputs, batch: Batch, memory: Any) -> Losses:
        del outputs, batch
        return {k: memory.weights[k] * x for k, x in found.items()}

    def renew(state: Any, epoch: Epoch) -> Any:
        if (epoch.number - 1) % _SUPER_EPOCH:
            return state

        def of(split: str) -> dict[str, float]:
            scores = epoch.evaluate(state, epoch.data[split])
            return {k: scores[f"loss/{k}"] for k in state.memory.weights}

        memory = _blending.blend(state.memory, of("train"), of("validation"))
        return state._replace(memory=memory)

    return Method(
        lambda groups, _: plain_sum(groups),
        losses=losses,
        memory=lambda outputs: _blending.no_blending(tuple(outputs.logits)),
        between_epochs=renew,
    )
