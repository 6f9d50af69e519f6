"""A task: a model, its losses, its measures and its data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from mmpareto_jax.data import Transform
from mmpareto_jax.models import Outputs
from mmpareto_jax.training._batch import Arrays, Batch
from mmpareto_jax.training._tasks.criteria import Criterion, Measure


@dataclasses.dataclass(frozen=True)
class Task:
    """What the loop needs to know of a problem.

    Attributes:
      make_model: rngs -> the model.
      outputs: (model, batch) -> predictions by objective, features by encoder.
      arrays: split ("train", "validation", "test") -> name -> array [N, ...].
      criteria: objective -> its loss and its measures.
      titles: objective -> what people call it.
      main: the objectives that the run is about: the joint one, or all tasks.
      eval_batch: examples of a batch in evaluation, at most.
      transform: what is done to training batches on the host; None: nothing.
      trunk: (model, batch) -> features that all objectives share; None: there are no
        such features.
      heads: (model, features) -> predictions by objective, from these.
      attached: `outputs` where these cut an objective off from the encoders: with it
        reaching them; None: nothing is cut off.
    """

    make_model: Callable[[nnx.Rngs], nnx.Module]
    outputs: Callable[[Any, Batch], Outputs]
    arrays: Mapping[str, Arrays]
    criteria: Mapping[str, Criterion]
    titles: Mapping[str, str]
    main: tuple[str, ...]
    eval_batch: int = 200
    transform: Transform | None = None
    trunk: Callable[[Any, Batch], jax.Array] | None = None
    heads: Callable[[Any, jax.Array], Outputs] | None = None
    attached: Callable[[Any, Batch], Outputs] | None = None

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        """Objective -> its loss on the batch, a scalar."""
        return {
            name: self.criteria[name].loss(z, batch[self.criteria[name].target])
            for name, z in outputs.logits.items()
        }

    def sums(
        self, outputs: Outputs, batch: Batch, mask: jax.Array
    ) -> dict[str, dict[str, jax.Array]]:
        """Objective -> what its measures add up over batches; the mask is [B]."""
        return {
            name: self.criteria[name].sums(z, batch[self.criteria[name].target], mask)
            for name, z in outputs.logits.items()
        }

    def scores(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Measure or "loss/objective" -> its value."""
        return {
            f"{kind}/{name}": value
            for name, x in sums.items()
            for kind, value in self.criteria[name].scores(x).items()
        }

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is reported; the first one chooses epochs and learning rates."""
        each = tuple(
            measure
            for name, title in self.titles.items()
            for measure in self.criteria[name].measures(name, title)
        )
        if len(self.main) == 1:
            return each
        if self._accuracies():
            return (Measure("accuracy/mean", "mean of the tasks"), *each)
        return (Measure("score/mean", "score", percent=False), *each)

    def overall(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The measure of all tasks together, where there is more than one.

        The mean accuracy; or, where the tasks have other measures, a score: the mean
        over tasks of the mean of 100 log(measure), with the sign that makes more
        better. A difference of 1 between two models is a relative improvement by 1 %.
        """
        if len(self.main) == 1:
            return {}
        if self._accuracies():
            mean = sum(scores[f"accuracy/{name}"] for name in self.main)
            return {"accuracy/mean": mean / len(self.main)}
        total = 0.0
        for name in self.main:
            own = self.criteria[name].measures(name, "")
            # A measure that is exactly 0 would decide alone.
            logs = [
                (1 if m.higher else -1) * math.log(max(scores[m.name], 1e-4))
                for m in own
            ]
            total += 100 * sum(logs) / len(logs)
        return {"score/mean": total / len(self.main)}

    def _accuracies(self) -> bool:
        return all("accuracy" in self.criteria[name].kinds for name in self.main)
