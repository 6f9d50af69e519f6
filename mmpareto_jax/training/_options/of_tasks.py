"""The options that some tasks have."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from mmpareto_jax.training._choices import FusionName, SharingName
from mmpareto_jax.training._options.option import SHARE, Limit, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Multimodal:
    """Of several modalities."""

    fusion: FusionName = option(
        "concat", "how the encoders meet; bottleneck needs --encoder transformer"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiTask:
    """Of several tasks."""

    sharing: SharingName = option("hard", "what the tasks have in common")
    gradients: Literal["parameters", "features"] = option(
        "parameters", "with respect to what the losses are differentiated"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AVDigits:
    """What makes the digits harder to hear and to see."""

    audio_snr_db: float = option(
        3.0,
        "noise on the spoken digit, dB; inf: none",
        Limit(lambda x: -100 <= x <= 100 or x == math.inf, "-100 to 100 dB, or inf"),
    )
    visual_noise: float = option(
        0.3,
        "noise on the written digit, standard deviation",
        Limit(lambda x: 0 <= x <= 1000, "0 to 1000"),
    )
    visual_occlusion: int = option(3, "side of the hidden square, pixels of 8")
    modalities: int = option(
        2,
        "3: a second image of the digit",
        Limit(lambda x: x in (2, 3), "2 or 3"),
    )
    visual_label_noise: float = option(
        0.0, "share of training examples with an image of a random digit", SHARE
    )
    contradiction: float = option(
        0.0,
        "share of examples that show one digit and say another; either is right",
        SHARE,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiDigits:
    """What makes one of the two digits harder."""

    right_noise: float = option(
        0.3, "share of salt-and-pepper pixels on the right digit", SHARE
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitTasks:
    """Which questions are asked."""

    num_tasks: int = option(
        8,
        "the first ones of eight",
        Limit(lambda x: 2 <= x <= 8, "2 to 8"),
    )
