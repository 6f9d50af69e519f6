"""Methods that modulate the joint loss's gradient, after its combination."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax.models import Outputs
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods._baselines import (
    gradient_modulation as _gradient_modulation,
)
from mmpareto_jax.training._methods.base import Groups, Method, Transformation
from mmpareto_jax.training._methods.joint import (
    encoder_of,
    joint_only,
    modalities_of,
    plain_sum,
)


def ogm(config: Config, *, noise: bool) -> Method:
    def combination(groups: Groups, _: Config) -> Transformation:
        modalities = modalities_of(groups)
        modulate = _gradient_modulation.ogm(
            encoder_of(modalities, 2),
            modalities,
            alpha=_strength(config),
            noise=noise,
        )
        return optax.chain(plain_sum(groups), modulate)

    return joint_only(
        combination=combination, signals=functools.partial(_scores, log=False)
    )


def agm(config: Config) -> Method:
    def combination(groups: Groups, _: Config) -> Transformation:
        modalities = modalities_of(groups)
        modulate = _gradient_modulation.agm(
            encoder_of(modalities, 0), modalities, alpha=_strength(config)
        )
        return optax.chain(plain_sum(groups), modulate)

    return joint_only(
        combination=combination, signals=functools.partial(_scores, log=True)
    )


def _strength(config: Config) -> float:
    return 0.3 if config.alpha is None else config.alpha


def _scores(outputs: Outputs, batch: Batch, *, log: bool) -> dict[str, Any]:
    """The right class under each modality's part of the joint logits."""
    if not outputs.parts:
        raise ValueError("method: OGM and AGM need a fusion that adds: concat, sum")
    label = batch["label"]
    rows = jnp.arange(len(label))
    logs = {m: jax.nn.log_softmax(z)[rows, label] for m, z in outputs.parts.items()}
    return {"scores": {m: jnp.mean(-x if log else jnp.exp(x)) for m, x in logs.items()}}
