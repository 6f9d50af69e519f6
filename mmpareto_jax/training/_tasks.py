"""Tasks: a model, its losses and its data, as the training loop sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mmpareto_jax.data import load_av_digits
from mmpareto_jax.models import AVClassifier, SmallCNN
from mmpareto_jax.training._config import Config


@dataclasses.dataclass(frozen=True)
class Task:
    """What the loop needs to know of a problem.

    Attributes:
      make_model: rngs -> the model.
      logits: (model, batch) -> objective -> logits [B, C].
      features: (model, batch) -> encoder -> the features [B, D] that a probe judges.
      arrays: split ("train", "validation", "test") -> name -> array [N, ...], with
        the classes under "label".
      title: objective -> what people call it, the main one first.
    """

    make_model: Callable[[nnx.Rngs], nnx.Module]
    logits: Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]
    features: Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    title: Mapping[str, str]


def make_task(config: Config) -> Task:
    """The task that `config` names."""
    return {"av-digits": _av_digits}[config.task](config)


def losses_and_correct(
    logits: Mapping[str, jax.Array], label: jax.Array
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Mean cross-entropy [] and correctness [B] of each objective."""
    losses = {
        name: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(z, label))
        for name, z in logits.items()
    }
    correct = {
        name: (jnp.argmax(z, axis=-1) == label).astype(jnp.float32)
        for name, z in logits.items()
    }
    return losses, correct


def _av_digits(config: Config) -> Task:
    dtype = jnp.dtype(config.dtype)

    def make_model(rngs: nnx.Rngs) -> nnx.Module:
        audio = SmallCNN(1, dtype=dtype, rngs=rngs)
        visual = SmallCNN(1, dtype=dtype, rngs=rngs)
        return AVClassifier(10, audio_encoder=audio, visual_encoder=visual, rngs=rngs)

    def logits(model: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        # Joint training leaves the encoders to the joint loss; the unimodal heads are
        # then probes that show what the encoders have learnt.
        probe = config.method == "joint"
        out: dict[str, jax.Array] = model(
            batch["audio"], batch["visual"], detach_unimodal=probe
        )
        return out

    def features(model: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        inputs = {name: batch[name] for name in model.modalities}
        found: dict[str, jax.Array] = model.features(inputs)[0]
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
    return Task(make_model, logits, features, arrays, title)
