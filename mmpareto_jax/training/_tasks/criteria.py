"""What an objective is trained by, and what it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax.training._batch import Batch

Sums = Mapping[str, Any]


class Measure(NamedTuple):
    """A number that is reported.

    Attributes:
      name: "kind/objective", as in the metrics; "kind/mean" is of all objectives.
      title: what people call it.
      higher: whether more is better.
      percent: whether it is a share from 0 to 1, shown in %.

    Example:
      >>> from mmpareto_jax.training import Measure
      >>> Measure("accuracy/joint", "multimodal").shown(0.25)
      25.0
    """

    name: str
    title: str
    higher: bool = True
    percent: bool = True

    def shown(self, value: Any) -> Any:
        """The value in the unit in which it is shown.

        Args:
          value: a number or an array, as in the metrics.

        Returns:
          100 times it for a share, else the value itself.
        """
        return 100 * value if self.percent else value


class Criterion(NamedTuple):
    """The loss of an objective, and its measures.

    What is measured need not be a mean over examples (an intersection over union is
    not), so a batch gives sums, and the sums of all batches give the scores.

    Attributes:
      target: the array of a batch that the predictions are compared with; None: the
        whole batch.
      loss: (predictions [B, ...], targets [B, ...]) -> scalar, what is differentiated.
      sums: (predictions, targets, mask [B]) -> name -> array; the mask is 1 for
        examples and 0 for what only fills the batch.
      scores: sums -> kind -> scalar; "loss" is one of them. Only arithmetic and
        methods that numpy's and jax's arrays share: it is called with both.
      kinds: of the scores that are reported, the main one first: kind -> (title,
        whether higher is better, whether it is a share).
    """

    target: str | None
    loss: Callable[[Any, Any], jax.Array]
    sums: Callable[[Any, Any, jax.Array], dict[str, jax.Array]]
    scores: Callable[[Sums], dict[str, Any]]
    kinds: Mapping[str, tuple[str, bool, bool]]

    def of(self, batch: Batch) -> Any:
        """What the predictions for a batch are compared with.

        Args:
          batch: name -> array [B, ...].

        Returns:
          The target's array, or the whole batch.
        """
        return batch if self.target is None else batch[self.target]

    def measures(self, objective: str, title: str) -> tuple[Measure, ...]:
        """What is reported of it.

        Args:
          objective: its name.
          title: what people call it.

        Returns:
          A measure for each of `kinds`, in their order.
        """
        plain = len(self.kinds) == 1
        return tuple(
            Measure(f"{kind}/{objective}", title if plain else name, higher, percent)
            for kind, (name, higher, percent) in self.kinds.items()
        )


def has_largest(logits: jax.Array) -> jax.Array:
    """[...], whether logits [..., classes] have a largest one: none is NaN or infinite.

    Some may be minus infinity. Of others ``argmax`` gives a class, too, which is none.
    """
    return jnp.isfinite(jnp.max(logits, axis=-1))


def total(values: jax.Array, weights: jax.Array) -> jax.Array:
    """The sum of values where they count; there, what is not finite makes it so."""
    return jnp.sum(jnp.where(weights == 0, 0, values * weights))


def labels(target: str) -> Criterion:
    """Cross-entropy and accuracy of logits [B, classes] for labels [B].

    Both are NaN where logits are.
    """

    def each(logits: jax.Array, label: jax.Array) -> jax.Array:
        loss: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return loss

    def sums(
        logits: jax.Array, label: jax.Array, mask: jax.Array
    ) -> dict[str, jax.Array]:
        right = (jnp.argmax(logits, axis=-1) == label).astype(jnp.float32)
        right = jnp.where(has_largest(logits), right, jnp.nan)
        return {
            "examples": jnp.sum(mask),
            "right": total(right, mask),
            "loss": total(each(logits, label), mask),
        }

    def scores(sums: Sums) -> dict[str, Any]:
        return {
            "accuracy": sums["right"] / sums["examples"],
            "loss": sums["loss"] / sums["examples"],
        }

    return Criterion(
        target,
        lambda logits, label: jnp.mean(each(logits, label)),
        sums,
        scores,
        {"accuracy": ("accuracy", True, True)},
    )


def computed(
    name: str,
    function: Callable[[Any, Batch], jax.Array],
    *,
    score: str,
    kinds: Mapping[str, tuple[str, bool, bool]],
) -> Criterion:
    """The mean over examples of what a user's function computes.

    The function maps (outputs, batch) to the value of every example [B], or to a
    scalar, which counts as that of each. Where outputs are NaN it is NaN, whatever the
    function makes of them (``argmax`` makes a class).
    """

    def values(outputs: Any, batch: Batch) -> jax.Array:
        found = function(outputs, batch)
        if found is None:
            raise ValueError(f"{name}: expected numbers, got None")
        found = jnp.asarray(found)
        size = len(jax.tree.leaves(dict(batch))[0])
        if found.shape not in ((), (size,)):
            raise ValueError(
                f"{name}: expected the value of every example, [{size}], or a scalar, "
                f"got shape {list(found.shape)}"
            )
        return found

    def sums(outputs: Any, batch: Batch, mask: jax.Array) -> dict[str, jax.Array]:
        found = total(values(outputs, batch).astype(jnp.float32), mask)
        return {
            "examples": jnp.sum(mask),
            "total": jnp.where(_has_nan(outputs), jnp.nan, found),
        }

    return Criterion(
        None,
        lambda outputs, batch: jnp.mean(values(outputs, batch)),
        sums,
        lambda sums: {score: sums["total"] / sums["examples"]},
        kinds,
    )


def _has_nan(outputs: Any) -> jax.Array:
    """Whether a float of any array is NaN; infinity may be what a model says."""
    found = [
        jnp.isnan(x).any()
        for x in map(jnp.asarray, jax.tree.leaves(outputs))
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    return jnp.stack([*found, jnp.array(False)]).any()
