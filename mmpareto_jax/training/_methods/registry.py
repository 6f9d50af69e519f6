"""The methods of ``--method``, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

import mmpareto_jax as mmp
from mmpareto_jax.training._choices import MethodName
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods.base import Groups, Method, Transformation
from mmpareto_jax.training._methods.greedy import greedy
from mmpareto_jax.training._methods.joint import joint_only
from mmpareto_jax.training._methods.losses import blending, pmr
from mmpareto_jax.training._methods.modulation import agm, ogm
from mmpareto_jax.training._methods.relearning import relearning

Rule: TypeAlias = "mmp.Weighting | mmp.LossWeighting | mmp.Aggregator"


def _of_rule(rule: Callable[[Config], Rule]) -> Method:
    return Method(
        lambda groups, config: mmp.aggregate(_smoothed(rule(config), config), groups)
    )


def _smoothed(rule: Rule, config: Config) -> Rule:
    if config.refresh > 1 and isinstance(rule, mmp.Aggregator):
        raise ValueError(
            f"refresh: expected 1 for {config.method}, which has no weights"
        )
    if config.smooth is None:
        return rule
    if not isinstance(rule, mmp.Weighting):
        raise ValueError(
            f"smooth: expected none for {config.method}, which weights no gradients"
        )
    return mmp.weightings.smoothed(rule, config.smooth)


def _uniform_gamma(config: Config) -> Rule:
    """The control: the plain sum with the encoders' learning rate times γ."""
    return mmp.Weighting(
        lambda _: (), lambda gramian, s: (config.gamma * jnp.ones_like(gramian[0]), s)
    )


def _mmpareto(groups: Groups, config: Config) -> Transformation:
    if config.variant == "official":
        return mmp.mmpareto(groups, gamma=config.gamma, variant="official")
    rule = mmp.weightings.mmpareto(
        config.gamma,
        conflict_test=config.conflict_test,
        magnitude=config.magnitude,
        max_magnitude=config.max_magnitude,
    )
    return mmp.aggregate(_smoothed(rule, config), groups)


def _pcd(groups: Groups, config: Config) -> Transformation:
    first = "joint" if "joint" in groups.objectives else groups.objectives[0]
    primary = first if config.primary is None else config.primary
    return mmp.aggregate(_smoothed(mmp.weightings.pcd(primary=primary), config), groups)


# The methods that are more than a rule of the library as it is by default.
_METHODS: dict[MethodName, Callable[[Config], Method]] = {
    "joint": lambda _: joint_only(),
    "uniform-gamma": lambda _: _of_rule(_uniform_gamma),
    "pareto": lambda _: _of_rule(lambda _: mmp.weightings.mgda()),
    "mmpareto": lambda _: Method(_mmpareto),
    "pcd": lambda _: Method(_pcd),
    "metabalance": lambda _: _of_rule(
        lambda config: mmp.weightings.metabalance(
            target=0 if config.primary is None else config.primary
        )
    ),
    "dwa": lambda _: _of_rule(
        lambda config: mmp.weightings.dwa(steps_per_epoch=config.steps_per_epoch)
    ),
    "ogm": functools.partial(ogm, noise=False),
    "ogm-ge": functools.partial(ogm, noise=True),
    "agm": agm,
    "pmr": pmr,
    "mmcosine": lambda _: joint_only(fusion="cosine"),
    "greedy": greedy,
    "g-blending": blending,
    "relearning": relearning,
    "single-task": lambda _: _of_rule(lambda _: mmp.weightings.uniform())._replace(
        sharing="separate"
    ),
}


def method_of(config: Config) -> Method:
    """What the config's method adds to the loop."""
    if config.method in _METHODS:
        return _METHODS[config.method](config)
    name = config.method.replace("-", "_")
    return _of_rule(lambda _: getattr(mmp.weightings, name)())
