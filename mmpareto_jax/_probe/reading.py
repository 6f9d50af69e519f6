"""What is told of the gradients on some of the parameters."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.gramian import Gramians
from mmpareto_jax._probe.measures import measured


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reading:
    r"""How the gradients of K objectives lie on some of the parameters.

    What is said of a step is said to first order, on the batch of the probe. A step d
    raises an objective where :math:`\langle g_k, d \rangle > 0`. A *descent* is the
    cosine of :math:`-g_k`, the objective's own direction, and a step: negative where
    the step raises it.

    A gradient that is zero has cosine 0 with all others, and no conflict; its descents
    are 0. Where a gradient is not finite, all is NaN that it enters, and NaN raises
    nothing. An array is float32, or float64 where a parameter is.

    Attributes:
      objectives: their names, in the order of the arrays.
      norms: [K], :math:`\|g_k\|`.
      cosines: [K, K], of every pair.
      similarities: [K, K], of magnitude: :math:`2\|a\|\|b\| / (\|a\|^2 + \|b\|^2)`.
        1 for equal lengths, 0 where one of the two is zero.
      alignment: scalar, :math:`2 \|\frac1K \sum_k g_k / \|g_k\|\|^2 - 1`: 1 where all
        agree, -1 where unit gradients cancel; for K = 2 the cosine.
      conflicts: scalar, the share of pairs with a negative cosine.
      sum_descent: [K], of the step against the plain sum of the gradients.
      min_norm_cosine: scalar, of the sum and the shortest point of the gradients'
        convex hull (:func:`min_norm_weights`); 0 where one of them is zero. Whatever
        lies between the mean and this point turns the sum by no more: MGDA's
        direction, and MMPareto's.
      min_norm_length: scalar, the norm of this point over that of the mean gradient,
        0 to 1. With 1 it is the mean; near 0 the gradients nearly cancel, and such a
        rule can stop. 0 where the sum is zero.
      update_norm: scalar, of the update; None where none was given, like what follows.
      update_descent: [K], of the update, as it is applied.
      update_change: [K], :math:`\langle g_k, \text{update} \rangle`: what the update
        adds to the objective.
    """

    objectives: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    norms: jax.Array
    cosines: jax.Array
    similarities: jax.Array
    alignment: jax.Array
    conflicts: jax.Array
    sum_descent: jax.Array
    min_norm_cosine: jax.Array
    min_norm_length: jax.Array
    update_norm: jax.Array | None = None
    update_descent: jax.Array | None = None
    update_change: jax.Array | None = None

    @property
    def sum_raises(self) -> jax.Array:
        """Bool [K], whether the step against the plain sum raises the objective."""
        return self.sum_descent < 0

    @property
    def update_raises(self) -> jax.Array | None:
        """Bool [K], whether the update does; None where none was given."""
        return None if self.update_descent is None else self.update_descent < 0

    def scalars(self) -> dict[str, jax.Array]:
        """All of it for a logger; of the pairs the smallest.

        Returns:
          Name -> scalar: ``norm/OBJECTIVE`` and ``sum_descent/OBJECTIVE`` for each;
          of several ``cosine``, ``similarity``, ``alignment``, ``conflicts``,
          ``min_norm_cosine`` and ``min_norm_length``; with an update ``update_norm``,
          ``update_descent/OBJECTIVE`` and ``update_change/OBJECTIVE``.
        """
        found: dict[str, jax.Array] = {}
        if len(self.objectives) > 1:
            found = {
                "cosine": jnp.min(self.cosines),
                "similarity": jnp.min(self.similarities),
                "alignment": self.alignment,
                "conflicts": self.conflicts,
                "min_norm_cosine": self.min_norm_cosine,
                "min_norm_length": self.min_norm_length,
            }
        each = {"norm": self.norms, "sum_descent": self.sum_descent}
        if self.update_norm is not None:
            found["update_norm"] = self.update_norm
        for name in ("update_descent", "update_change"):
            if getattr(self, name) is not None:
                each[name] = getattr(self, name)
        for name, values in each.items():
            for k, objective in enumerate(self.objectives):
                found[f"{name}/{objective}"] = values[k]
        return found


def reading(objectives: tuple[str, ...], g: Gramians) -> Reading:
    """From the Gramians of the objectives, and perhaps of one row more, the update."""
    with_update = len(g.rows) > len(objectives)
    return Reading(objectives, **measured(g.total, g.rows, with_update=with_update))
