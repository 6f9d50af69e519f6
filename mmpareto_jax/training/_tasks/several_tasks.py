"""The multi-task tasks: several questions about one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mmpareto_jax.data import (
    DIGIT_TASKS,
    SCENE_CLASSES,
    Transform,
    load_digit_tasks,
    load_multi_digits,
    load_scenes,
)
from mmpareto_jax.models import Outputs
from mmpareto_jax.training._batch import Arrays, Batch
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods.registry import method_of
from mmpareto_jax.training._tasks.architecture import make_multitask_model
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.criteria import Criterion, labels
from mmpareto_jax.training._tasks.dense_criteria import depth, normals, segmentation

_SPLITS: tuple[Any, ...] = ("train", "validation", "test")
# Images of this size and above go one training batch at a time in evaluation, too.
_LARGE = 128


def _of(
    config: Config,
    arrays: Mapping[str, Arrays],
    tasks: Mapping[str, tuple[Criterion, int]],
    *,
    dense: bool = False,
    read: Callable[[jax.Array], jax.Array] = lambda x: x,
    transform: Transform | None = None,
) -> Task:
    """A task of the array "image"; objective -> (criterion, width of a prediction).

    `read` maps a batch of images to what the trunk takes.
    """
    images = arrays["train"]["image"]
    shape = jax.eval_shape(
        read, jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    )
    sharing = method_of(config).sharing or config.sharing
    widths = {name: width for name, (_, width) in tasks.items()}

    def make_model(rngs: nnx.Rngs) -> nnx.Module:
        return make_multitask_model(
            config, sharing, shape.shape[1:], widths, dense=dense, rngs=rngs
        )

    def outputs(model: Any, batch: Batch) -> Outputs:
        found: Outputs = model.outputs(read(batch["image"]))
        return found

    def trunk(model: Any, batch: Batch) -> jax.Array:
        features: jax.Array = model.trunk(read(batch["image"]))
        return features

    def heads(model: Any, features: jax.Array) -> Outputs:
        found: Outputs = model.heads(features)
        return found

    hard = sharing == "hard"
    return Task(
        config.task,
        make_model,
        outputs,
        arrays,
        criteria={name: criterion for name, (criterion, _) in tasks.items()},
        titles={name: name for name in tasks},
        main=tuple(tasks),
        eval_batch=config.batch_size if max(shape.shape[1:3]) >= _LARGE else 200,
        transform=transform,
        trunk=trunk if hard else None,
        heads=heads if hard else None,
        sharing=sharing,
        built_in=True,
    )


def _size(config: Config, split: str) -> int | None:
    return config.num_train if split == "train" else None


# --- What is in the package


def multi_digits(config: Config) -> Task:
    arrays = {
        split: load_multi_digits(
            split,
            num_examples=_size(config, split),
            noise=config.right_noise,
            raw=config.data,
        ).arrays
        for split in _SPLITS
    }
    sides = {name: (labels(name), 10) for name in ("left", "right")}
    return _of(config, arrays, sides)


def digit_tasks(config: Config) -> Task:
    arrays = {
        split: load_digit_tasks(
            split, num_tasks=config.num_tasks, num_examples=_size(config, split)
        ).arrays
        for split in _SPLITS
    }
    names = list(DIGIT_TASKS)[: config.num_tasks]
    tasks = {name: (labels(name), DIGIT_TASKS[name]) for name in names}
    return _of(config, arrays, tasks)


def scenes(config: Config) -> Task:
    arrays = {
        split: load_scenes(split, num_examples=_size(config, split)).arrays
        for split in _SPLITS
    }
    return _of(config, arrays, _dense_tasks(arrays, len(SCENE_CLASSES)), dense=True)


# --- Data sets that were prepared


def prepared_tasks(config: Config) -> Task:
    from mmpareto_jax.data import dense_augmentation
    from mmpareto_jax.data.sources import open_prepared

    assert config.data is not None
    prepared = open_prepared(config.data)
    arrays = {split: dict(found) for split, found in prepared.arrays.items()}
    arrays["train"] = {k: x[: config.num_train] for k, x in arrays["train"].items()}

    def read(image: jax.Array) -> jax.Array:
        # Bytes travel to the device, and become numbers there.
        return image / 255.0 if image.dtype == jnp.uint8 else image

    return _of(
        config,
        arrays,
        _dense_tasks(arrays, len(prepared.classes)),
        dense=True,
        read=read,
        transform=dense_augmentation(),
    )


def _dense_tasks(
    arrays: Mapping[str, Arrays], num_classes: int
) -> dict[str, tuple[Criterion, int]]:
    """Those of the three tasks whose targets are there."""
    known = {
        "segmentation": (segmentation("segmentation", num_classes), num_classes),
        "depth": (depth("depth"), 1),
        "normal": (normals("normal"), 3),
    }
    return {name: x for name, x in known.items() if name in arrays["train"]}
