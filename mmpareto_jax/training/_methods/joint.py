"""What the methods share that are about one joint loss and its modalities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

import mmpareto_jax as mmp
from mmpareto_jax.models import MultimodalClassifier
from mmpareto_jax.training._methods.base import Groups, Method, Transformation


def joint_only(**more: Any) -> Method:
    """The joint loss alone trains; what watches has one objective per encoder."""
    return Method(lambda groups, _: plain_sum(groups), probes=True)._replace(**more)


def plain_sum(groups: Groups) -> Transformation:
    """One row each, as all of these methods have it: the row itself."""
    return mmp.aggregate(mmp.weightings.uniform(), groups)


def modalities_of(groups: Groups) -> tuple[str, ...]:
    return tuple(k for k in groups.objectives if k != "joint")


def encoder_of(modalities: tuple[str, ...], least_ndim: int) -> Callable[[Any], Any]:
    """Params -> the modality of every leaf that belongs to an encoder, else None."""

    def label(path: Any, x: jax.Array) -> str | None:
        attribute = jax.tree_util.keystr(path[:1], simple=True)
        modality = MultimodalClassifier.modality_of(attribute)
        return modality if modality in modalities and x.ndim >= least_ndim else None

    return lambda params: jax.tree.map_with_path(label, params)
