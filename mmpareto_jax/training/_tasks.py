"""Tasks: a model, its losses and its data, as the training loop sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpareto_jax.data import load_av_digits
from mmpareto_jax.models import (
    MMTM,
    BottleneckTokens,
    CentralNet,
    CosineFusion,
    FiLMFusion,
    Fusion,
    GatedFusion,
    Interaction,
    MultimodalClassifier,
    Outputs,
    PatchTransformer,
    SmallCNN,
    StagedEncoder,
    SumFusion,
)
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods import method_of


@dataclasses.dataclass(frozen=True)
class Task:
    """What the loop needs to know of a problem.

    Attributes:
      make_model: rngs -> the model.
      outputs: (model, batch) -> logits by objective, features by encoder.
      arrays: split ("train", "validation", "test") -> name -> array [N, ...], with
        the classes under "label".
      title: objective -> what people call it, the main one first.
    """

    make_model: Callable[[nnx.Rngs], nnx.Module]
    outputs: Callable[[Any, Mapping[str, jax.Array]], Outputs]
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    title: Mapping[str, str]


def make_task(config: Config) -> Task:
    """The task that `config` names."""
    return {"av-digits": _av_digits}[config.task](config)


def correct(outputs: Outputs, label: jax.Array) -> dict[str, jax.Array]:
    """Objective -> correctness [B], 0 or 1 in float32."""
    return {
        name: (jnp.argmax(z, axis=-1) == label).astype(jnp.float32)
        for name, z in outputs.logits.items()
    }


def _av_digits(config: Config) -> Task:
    method = method_of(config)

    def make_model(rngs: nnx.Rngs) -> nnx.Module:
        shapes = {"audio": (32, 32, 1), "visual": (1, 16, 16, 1)}
        encoders = {name: _encoder(config, x, rngs) for name, x in shapes.items()}
        fusion, interaction = _meeting(
            method.fusion or config.fusion, config, list(encoders.values()), rngs
        )
        return MultimodalClassifier(
            10, encoders, fusion=fusion, interaction=interaction, rngs=rngs
        )

    def outputs(model: Any, batch: Mapping[str, jax.Array]) -> Outputs:
        inputs = {name: batch[name] for name in model.modalities}
        found: Outputs = model.outputs(inputs, detach_unimodal=method.probes)
        return found

    sizes = {"train": config.train_examples, "validation": None, "test": None}
    arrays = {
        split: load_av_digits(
            split,  # type: ignore[arg-type]
            num_examples=size,
            audio_snr_db=config.audio_snr_db,
            visual_noise=config.visual_noise,
            visual_occlusion=config.visual_occlusion,
        ).arrays
        for split, size in sizes.items()
    }
    title = {"joint": "multimodal", "audio": "audio", "visual": "visual"}
    return Task(make_model, outputs, arrays, title)


def _encoder(
    config: Config, shape: tuple[int, ...], rngs: nnx.Rngs
) -> SmallCNN | PatchTransformer:
    dtype, width = jnp.dtype(config.dtype), config.width
    if config.encoder == "cnn":
        widths = (width // 4, width // 2, width)
        return SmallCNN(shape[-1], widths, dtype=dtype, rngs=rngs)
    patch = (shape[-3] // 4, shape[-2] // 4)
    return PatchTransformer(
        shape, patch, features=width, depth=3, dtype=dtype, rngs=rngs
    )


def _meeting(
    name: str, config: Config, encoders: Sequence[StagedEncoder], rngs: nnx.Rngs
) -> tuple[Fusion | None, Interaction | None]:
    """The fusion and the interaction of that name; None is the model's default."""
    widths, classes = [encoder.out_features for encoder in encoders], 10
    match name:
        case "sum":
            return SumFusion(widths, classes, rngs=rngs), None
        case "film":
            return FiLMFusion(widths, classes, rngs=rngs), None
        case "gated":
            return GatedFusion(widths, classes, hidden=config.width, rngs=rngs), None
        case "cosine":
            return CosineFusion(widths, classes, rngs=rngs), None
        case "mmtm":
            return None, MMTM(encoders, rngs=rngs)
        case "central":
            return None, CentralNet(encoders, features=config.width, rngs=rngs)
        case "bottleneck":
            return None, BottleneckTokens(encoders, rngs=rngs)
        case _:
            return None, None
