"""The options that some methods have."""

from __future__ import annotations

import dataclasses
from typing import Literal

from mmpareto_jax.training._options.option import (
    NOT_NEGATIVE,
    POSITIVE,
    SOME,
    Limit,
    option,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Of rules that weight gradients: when they do, and for how long."""

    refresh: int = option(
        1, "find weights every so many steps, and keep them between", SOME
    )
    smooth: float | None = option(
        None,
        "decay of a running mean of the weights, over the times that they are found; "
        "default: none",
        Limit(lambda x: 0 <= x < 1, "0 <= decay < 1"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gamma:
    """Of MMPareto and its control."""

    gamma: float = option(1.5, "factor on the encoders' gradients", NOT_NEGATIVE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMPareto:
    """Of MMPareto alone: what its rule may do without."""

    variant: Literal["paper", "official"] = option("paper", "see mmpareto_jax.mmpareto")
    conflict_test: bool = option(True, "off takes the min-norm weights at every step")
    magnitude: bool = option(True, "off leaves the direction at its own norm")
    max_magnitude: float | None = option(
        None,
        "upper limit of the magnitude factor",
        Limit(
            lambda x: x >= 1 and POSITIVE.holds(x),
            "a finite number >= 1 that float32 holds",
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imbalance:
    """Of the methods against modality imbalance."""

    alpha: float | None = option(
        None,
        "strength of OGM, AGM or PMR, λ of Re-learning, ε of Greedy; or their own",
        NOT_NEGATIVE,
    )
