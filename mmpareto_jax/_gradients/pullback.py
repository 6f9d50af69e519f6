"""All cotangents in one sweep: a jaxpr interpreter with one lane per objective.

The backward pass of K objectives is linear in their K output cotangents. Of the
traced program ``(inputs, cotangents) -> (losses, gradients)`` every equation is
therefore of one of two kinds:

* it depends on no cotangent (the forward pass, residuals, what ``jax.checkpoint``
  recomputes): it is evaluated once, whatever K is;
* it depends on the cotangents of some objectives: it is evaluated once for each of
  those and for no other, because a cotangent that is not there is zero.

A variable of the second kind is carried as ``Lanes``: the objectives that reach it
and a value for each. Which lanes there are says ``reach.py``, equation by equation;
those that arrive at a parameter's gradient *are* the answer to "which objectives reach
this parameter". So the gradients and the groups come from one mechanism, and both see
through ``jit``, ``scan``, ``cond``, ``checkpoint`` and ``custom_vjp``.

``jax.linearize`` with one ``jax.linear_transpose`` per objective gives the same
numbers, but it refuses ``custom_vjp`` functions and repeats the recomputation of
``jax.checkpoint`` for every objective. One ``jax.vjp`` per objective, with JAX's own
symbolic zeros, costs as much as this sweep in programs without loops, but not under
``scan``, where the zeros are made real: 2.24 of the plain FLOPs against 1.62, and 2.42
against 1.47 with ``jax.checkpoint`` inside (K = 3). It is what is left where a backward
pass has a part that no cotangent owns (``backward.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
from jax.extend import core as jex

from mmpareto_jax._gradients import reach
from mmpareto_jax._gradients.control import RULES
from mmpareto_jax._gradients.lanes import seeds
from mmpareto_jax._gradients.mixes import Mixes
from mmpareto_jax._gradients.reach import Fact
from mmpareto_jax._gradients.sweep import Sweep, Wanted

Pullback: TypeAlias = Literal["unroll", "vmap"]


def evaluate(
    closed: jex.ClosedJaxpr,
    consts: Sequence[Fact],
    cotangents: Sequence[jax.Array],
    *,
    pullback: Pullback,
    mixes: Mixes | None = None,
) -> list[Any]:
    """Evaluates a backward pass for all of its cotangents at once.

    Args:
      closed: the jaxpr of a function that is linear in its inputs: K scalars, or one
        array [K].
      consts: what is known of its constants.
      cotangents: the inputs.
      pullback: "unroll" or "vmap", see ``value_and_objective_grads``.
      mixes: the weighted sums of objectives that are asked for, if objectives are not.

    Returns:
      Per output its lanes; or an array, where no objective reaches: zero, or what the
      backward pass gives for any cotangents. With `mixes` its mix, an array.
    """
    stacked = pullback == "vmap"
    lanes = seeds(cotangents, stacked=stacked)
    facts = reach.seeds([x.shape for x in cotangents])
    sweep = Sweep(RULES, stacked=stacked, mixes=mixes)
    needs = None if mixes is None else mixes.needs()
    outs, _ = sweep.run(
        closed.jaxpr,
        closed.consts,
        lanes,
        facts,
        const_facts=consts,
        wanted=Wanted(needs),
    )
    return outs if mixes is None else [mixes.output(i, x) for i, x in enumerate(outs)]
