"""A task: a model, its losses, its measures and its data."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmpareto_jax.data import Source, Transform, as_examples, first_examples
from mmpareto_jax.models import Outputs
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._tasks.criteria import Criterion, Measure

SPLITS = ("train", "validation", "test")


# Compared and hashed as itself: arrays have no truth.
@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A problem, as the trainer sees it: a model, its data, losses and measures.

    Everything the trainer does, it does with these fields alone; the built-in tasks are
    made by the same two functions as a user's: ``classification`` and ``task``.

    Attributes:
      name: what it is called in files and tables.
      make_model: ``nnx.Rngs`` -> the model, a ``flax.nnx.Module``. What is trained are
        its ``nnx.Param``; all other state (BatchNorm, random streams) is carried along.
      outputs: (model, batch) -> ``models.Outputs``: what each objective's criterion
        looks at, by objective; features [B, D] by encoder, and parts of the joint
        logits by modality, both of which may be empty.
      data: "train", "validation" and "test" -> what ``data.as_examples`` takes: arrays
        by name [N, ...], a grain source, ``data.FunctionExamples``.
      criteria: objective -> its loss and its measures.
      titles: objective -> what people call it.
      main: the objectives that the run is about: the joint one, or all tasks.
      judged: measure -> a criterion with this one score, for measures that belong to no
        single objective; they come before all others.
      eval_batch: examples of a batch in evaluation, at most.
      fill: whether the last batch of an evaluation may be filled up, since criteria
        heed the mask; else it is a smaller one.
      transform: (batch, generators) -> batch, on the host, for training batches; None:
        nothing.
      trunk: (model, batch) -> features that all objectives share; None: there are no
        such features.
      heads: (model, features) -> outputs, from these.
      detached: `outputs` with the unimodal heads cut off from the encoders, for methods
        that train by the joint loss alone; None: the task has no such heads.
      fusion: how modalities meet, by the name of ``--fusion``; None: in another way.
      sharing: what several tasks share, by the name of ``--sharing``; None: another.
      built_in: whether a config's ``task`` names it, and its options made its model.

    Raises:
      TypeError: an argument is of another type.
      ValueError: the splits are not these three; examples of one have other names or
        shapes than those of another, or something called "mask", which evaluation adds;
        or batches of none.

    Example:
      >>> from mmpareto_jax.training import Config, make_task
      >>> task = make_task(Config(train_examples=32))
      >>> task.name, task.main, sorted(task.criteria)
      ('av-digits', ('joint',), ['audio', 'joint', 'visual'])
    """

    name: str
    make_model: Callable[[nnx.Rngs], nnx.Module]
    outputs: Callable[[Any, Batch], Outputs]
    data: Mapping[str, Source]
    criteria: Mapping[str, Criterion]
    titles: Mapping[str, str]
    main: tuple[str, ...]
    judged: Mapping[str, Criterion] = dataclasses.field(default_factory=dict)
    eval_batch: int = 200
    fill: bool = True
    transform: Transform | None = None
    trunk: Callable[[Any, Batch], jax.Array] | None = None
    heads: Callable[[Any, jax.Array], Outputs] | None = None
    detached: Callable[[Any, Batch], Outputs] | None = None
    fusion: str | None = None
    sharing: str | None = None
    built_in: bool = False

    def __post_init__(self) -> None:
        check_splits(self.name, self.data)
        if not isinstance(self.name, str):
            raise TypeError(f"task: name: expected a str, got {self.name!r:.60}")
        if not isinstance(self.eval_batch, int):
            raise TypeError(
                f"task {self.name}: eval_batch: expected an integer, got "
                f"{self.eval_batch!r:.60}"
            )
        if self.eval_batch < 1:
            raise ValueError(
                f"task {self.name}: eval_batch: expected at least 1, "
                f"got {self.eval_batch}"
            )
        shapes = {split: _shapes(source) for split, source in self.data.items()}
        for split, found in shapes.items():
            if "mask" in found:
                raise ValueError(
                    f'task {self.name}: data: {split}: expected no name "mask", which '
                    "evaluation adds"
                )
            if found != shapes["train"]:
                raise ValueError(
                    f"task {self.name}: data: {split}: expected examples of "
                    f"{shapes['train']}, as in train, got {found}"
                )

    def first(self, size: int) -> Task:
        """The task with only so many training examples, the first ones.

        Args:
          size: how many, at least 1.

        Returns:
          The task; the same where there are no more.
        """
        fewer = first_examples(self.data["train"], size)
        return dataclasses.replace(self, data={**self.data, "train": fewer})

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        """What is differentiated.

        Args:
          outputs: of the model, for the batch.
          batch: name -> array [B, ...].

        Returns:
          Objective -> its loss on the batch, a scalar.
        """
        return {
            name: self.criteria[name].loss(z, self.criteria[name].of(batch))
            for name, z in outputs.logits.items()
        }

    def sums(
        self, outputs: Outputs, batch: Batch, mask: jax.Array
    ) -> dict[str, dict[str, jax.Array]]:
        """What scores are made of, once it is added up over batches.

        Args:
          outputs: of the model, for the batch.
          batch: name -> array [B, ...].
          mask: [B], 1 for examples and 0 for what fills the batch.

        Returns:
          Objective, or "measure/" and a measure -> name -> array.
        """
        seen = next(iter(outputs.logits.values()))
        found = {
            name: self.criteria[name].sums(z, self.criteria[name].of(batch), mask)
            for name, z in outputs.logits.items()
        }
        judged = {
            f"measure/{name}": criterion.sums(seen, criterion.of(batch), mask)
            for name, criterion in self.judged.items()
        }
        return found | judged

    def scores(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Losses and measures of all that was added up.

        Args:
          sums: of `sums`, added up.

        Returns:
          Measure or "loss/objective" -> its value.
        """
        found = {
            f"{kind}/{name}": value
            for name, x in sums.items()
            if name in self.criteria
            for kind, value in self.criteria[name].scores(x).items()
        }
        judged = {
            name: criterion.scores(sums[f"measure/{name}"])["value"]
            for name, criterion in self.judged.items()
        }
        return found | judged

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is reported; the first one chooses epochs and learning rates."""
        each = tuple(
            measure._replace(name=name)
            for name, criterion in self.judged.items()
            for measure in criterion.measures(name, name)
        ) + tuple(
            measure
            for name, title in self.titles.items()
            for measure in self.criteria[name].measures(name, title)
        )
        if not each:
            return (Measure("losses", "sum of the losses", False, False),)
        if self.judged or len(self.main) == 1:
            return each
        if self._accuracies():
            return (Measure("accuracy/mean", "mean of the tasks"), *each)
        return (Measure("score/mean", "score", percent=False), *each)

    def overall(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The measure of all objectives together, where there is one.

        The mean accuracy; or, where the tasks have other measures, a score: the mean
        over tasks of the mean of 100 log(measure), with the sign that makes more
        better. A difference of 1 between two models is a relative improvement by 1 %.
        Without any measure, the sum of the losses.

        Args:
          scores: of `scores`.

        Returns:
          Its name -> its value; empty where the first measure is of one objective.
        """
        main = self.measures[0].name
        if main == "losses":
            return {main: sum(scores[f"loss/{name}"] for name in self.criteria)}
        if main == "accuracy/mean":
            mean = sum(scores[f"accuracy/{name}"] for name in self.main)
            return {main: mean / len(self.main)}
        if main != "score/mean":
            return {}
        total = 0.0
        for name in self.main:
            own = self.criteria[name].measures(name, "")
            # A measure that is exactly 0 would decide alone.
            logs = [
                (1 if m.higher else -1) * math.log(max(scores[m.name], 1e-4))
                for m in own
            ]
            total += 100 * sum(logs) / len(logs)
        return {main: total / len(self.main)}

    def better(self, scores: Mapping[str, float]) -> float:
        """By what checkpoints and learning rates are chosen.

        Args:
          scores: of a split.

        Returns:
          The main measure, with the sign that makes more better.
        """
        main = self.measures[0]
        return scores[main.name] if main.higher else -scores[main.name]

    def _accuracies(self) -> bool:
        return all("accuracy" in self.criteria[name].kinds for name in self.main)


def _shapes(source: Source) -> dict[str, tuple[int, ...]]:
    """Name -> the shape of an example."""
    example = as_examples(source).take(np.arange(1))
    return {name: np.shape(x)[1:] for name, x in sorted(example.items())}


def check_splits(name: str, data: Mapping[str, Source]) -> None:
    """Refuses data that are not three splits.

    Raises:
      ValueError: names what was found, and what makes splits.
    """
    if not isinstance(data, Mapping) or set(data) != set(SPLITS):
        found = list(data) if isinstance(data, Mapping) else type(data).__name__
        raise ValueError(
            f"task {name}: data: expected {', '.join(SPLITS)} -> examples, got "
            f"{found}; data.random_splits makes the three of one"
        )


def digest(task: Task) -> str:
    """Changes with the sizes of the splits, and with the first example of each."""
    found = hashlib.sha256()
    for split, source in sorted(task.data.items()):
        examples = as_examples(source)
        found.update(f"{split} {len(examples)}".encode())
        for name, x in sorted(examples.take(np.arange(1)).items()):
            found.update(f"{name} {x.dtype} {x.shape}".encode() + x.tobytes())
    return found.hexdigest()
