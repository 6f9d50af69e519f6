"""The multimodal tasks: AV-digits, and data sets that were prepared."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpareto_jax.data import Transform, augmentation, load_av_digits, middle_frames
from mmpareto_jax.training._batch import Arrays
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods.registry import method_of
from mmpareto_jax.training._tasks.architecture import make_encoder
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.modalities import classification, shapes_of


def _built_in(
    config: Config,
    data: Mapping[str, Arrays],
    num_classes: int,
    read: Callable[[str, jax.Array], jax.Array] = lambda _, x: x,
    transform: Transform | None = None,
) -> Task:
    """A task of the arrays beside "label", with the model that the config asks for."""
    encoders = {
        name: functools.partial(_encoder, config, shape)
        for name, shape in shapes_of(data["train"], read).items()
    }
    task = classification(
        data,
        name=config.task,
        encoders=encoders,
        fusion=method_of(config).fusion or config.fusion,
        width=config.width,
        num_classes=num_classes,
        read=read,
        transform=transform,
    )
    return dataclasses.replace(task, built_in=True)


def _encoder(config: Config, shape: tuple[int, ...], rngs: nnx.Rngs) -> Any:
    return make_encoder(config, shape, rngs)


# --- AV-digits


def av_digits(config: Config) -> Task:
    def load(split: Any, seed: int) -> dict[str, np.ndarray]:
        return load_av_digits(
            split,
            num_examples=config.num_train if split == "train" else None,
            audio_snr_db=config.audio_snr_db,
            visual_noise=config.visual_noise,
            visual_occlusion=config.visual_occlusion,
            seed=seed,
        ).arrays

    arrays = {}
    for number, split in enumerate(("train", "validation", "test")):
        found = load(split, 0)
        if config.modalities == 3:
            found["second"] = load(split, 1)["visual"]
        rng = np.random.default_rng([1, number])
        if split == "train":
            found = _with_random_images(found, config.visual_label_noise, rng)
        arrays[split] = _with_contradictions(found, config.contradiction, rng)
    return _built_in(config, arrays, 10)


def _with_random_images(
    arrays: dict[str, np.ndarray], share: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """For a share of the examples, an image that has nothing to do with the label."""
    size = len(arrays["label"])
    rows = np.arange(size)
    chosen = rng.random(size) < share
    rows[chosen] = rng.integers(size, size=chosen.sum())
    return arrays | {"visual": arrays["visual"][rows]}


def _with_contradictions(
    arrays: dict[str, np.ndarray], share: float, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """For a share, an image of another digit; the label is of the image in half."""
    label = arrays["label"]
    size = len(label)
    rows = np.arange(size)
    for row in np.flatnonzero(rng.random(size) < share):
        rows[row] = rng.choice(np.flatnonzero(label != label[row]))
    seen = label[rows]
    right = np.where(rng.random(size) < 0.5, seen, label).astype(label.dtype)
    return arrays | {"visual": arrays["visual"][rows], "label": right}


# --- Data sets that were prepared

# Array -> mean and standard deviation of its pixels in [0, 1].
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_PIXELS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "visual": _IMAGENET,
    "rgb": _IMAGENET,
    "front": _IMAGENET,
    "rear": _IMAGENET,
    "flow": ((0.5, 0.5), (0.25, 0.25)),
    "gray": ((0.1307,), (0.3081,)),
    "color": ((0.1307,) * 3, (0.3081,) * 3),
}
_UNKNOWN = ((0.5,), (0.5,))
_CROPPED: dict[str, str] = {"crema-d": "visual", "kinetics-sounds": "visual"}


def prepared_modalities(config: Config) -> Task:
    from mmpareto_jax.data.sources import open_prepared

    assert config.data is not None
    prepared = open_prepared(config.data)
    arrays = {split: dict(found) for split, found in prepared.arrays.items()}
    arrays["train"] = {k: x[: config.num_train] for k, x in arrays["train"].items()}

    pixels = {name: _pixels(name, x) for name, x in arrays["train"].items()}

    def read(name: str, x: jax.Array) -> jax.Array:
        if x.ndim == 6:  # evaluation: nobody has drawn one of the candidates
            x = middle_frames(x)
        found = pixels[name]
        if found is None:
            return x.astype(jnp.float32)
        # Bytes travel to the device, and become numbers there.
        mean, scale = (jnp.array(v) for v in found)
        shape = (1,) * (x.ndim - 1) + (-1,)
        return (x / 255.0 - mean.reshape(shape)) / scale.reshape(shape)

    transform = None
    if config.task in _CROPPED:
        name = _CROPPED[config.task]
        transform = augmentation({name: arrays["train"][name].shape[-2]})
    return _built_in(config, arrays, len(prepared.classes), read, transform)


def _pixels(
    name: str, x: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of pixels in [0, 1]; None: the array is ready as it is."""
    if x.dtype != np.uint8 or x.ndim < 4:
        return None
    known = _PIXELS.get(name, _UNKNOWN)
    if len(known[0]) == x.shape[-1]:
        return known
    return _UNKNOWN if x.shape[-1] in (1, 3) else None
