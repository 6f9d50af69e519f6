"""What a rule is: three kinds, by what they look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

State: TypeAlias = Any
Names: TypeAlias = tuple[str, ...]


class Weighting(NamedTuple):
    """A rule that turns the Gramian of a group into the weights of its objectives.

    A pair of pure functions, as an Optax transformation is.

    Attributes:
      init: ``init(K) -> state``: a tree of strongly typed arrays, or ``()``. A field
        with the name of a diagnostic would make ``optax.tree.get`` ambiguous.
      weights: ``weights(gramian, state) -> (weights, state)``: from the Gramian
        [K, K], float32 or float64, the weights [K] of the same dtype; the group's
        update is ``sum_k weights[k] * g_k``. Where a gradient is too short or too
        long to be squared, the Gramian comes divided by the square of about the
        largest magnitude.
      extras: what else ``weights`` takes, as keyword arguments:

        * "losses": [K], those of the group, from ``tx.update(..., losses=losses)``;
        * "scale": scalar; the true Gramian is scale² times the given one;
        * "rows": [K], powers of two. The given Gramian is then that of the gradients
          each divided by its ``rows[k]``, and the weights returned are those of the
          divided gradients, ``sum_k weights[k] * (g_k / rows[k])``: so a rule is right
          where one gradient is any number of times as long as another. Without it, a
          gradient is zero to the rule from about 1e-19 of the longest on, in float32;
        * "cross": [K, K], inner products of these gradients (rows) with those of
          ``tx.update(..., independent=grads)``, on another batch, divided by scale²;
          without that argument the Gramian itself.
      reads_gramian: whether the weights depend on what is in the Gramian. Where they
        depend on its shape and dtype alone, none is computed if nobody else reads it
        (``mmp.aggregate(..., diagnostics=False)``).
      named: None; or ``named(names, objectives) -> Weighting``, the rule for a group of
        objectives with these names, among all: where what it was given is by name.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> inverse_norms = mmp.Weighting(
      ...     init=lambda num_objectives: (),
      ...     weights=lambda gramian, state: (1 / jnp.sqrt(jnp.diag(gramian)), state),
      ... )
      >>> tx = mmp.aggregate(inverse_norms, 2)
      >>> grads = jnp.array([[4.0, 0.0], [0.0, 2.0]])
      >>> print(tx.update(grads, tx.init(jnp.zeros(2)))[0])
      [1. 1.]
    """

    init: Callable[[int], State]
    weights: Callable[..., tuple[jax.Array, State]]
    extras: tuple[str, ...] = ()
    reads_gramian: bool = True
    named: Callable[[Names, Names], Weighting] | None = None


class LossWeighting(NamedTuple):
    """A rule that weights the losses themselves, before they are differentiated.

    It acts on every parameter, also where one objective is alone. With
    :func:`mmpareto_jax.aggregate` the gradients are weighted by it, and
    ``tx.update(..., losses=losses)`` hands it the losses; with
    :func:`mmpareto_jax.scalarize` the weighted sum is differentiated, which gives the
    same update for the price of one backward pass.

    Both keep the old state where the losses or the new state are not finite. The rules
    of the library that need positive losses leave an objective whose loss is exactly 0
    out of the step: in this batch it has nothing to learn.

    Attributes:
      init: ``init(K) -> state``, K the number of all objectives.
      weights: ``weights(losses, state) -> (weights, state)``: [K] from [K], float32
        or float64; the update is that of ``sum_k weights[k] * losses[k]``, the
        weights held constant.
      extras: names of further arguments of ``tx.update`` that ``weights`` takes as
        keyword arguments, [K] each, or None where they are not given.
      named: as of :class:`Weighting`; its objectives are all.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> inverse_losses = mmp.LossWeighting(
      ...     init=lambda num_objectives: (),
      ...     weights=lambda losses, state: (1 / losses, state),
      ... )
      >>> tx = mmp.aggregate(inverse_losses, 2)
      >>> grads, losses = jnp.array([[3.0, 0.0], [0.0, 3.0]]), jnp.array([1.0, 2.0])
      >>> print(tx.update(grads, tx.init(jnp.zeros(2)), losses=losses)[0])
      [3.  1.5]
    """

    init: Callable[[int], State]
    weights: Callable[..., tuple[jax.Array, State]]
    extras: tuple[str, ...] = ()
    named: Callable[[Names, Names], LossWeighting] | None = None


class Aggregator(NamedTuple):
    """A rule that needs the stacked gradients themselves.

    Attributes:
      init: ``init(leaves) -> state``, from ``jax.ShapeDtypeStruct`` of the stacked
        leaves [K, ...] of a group.
      combine: ``combine(leaves, state) -> (updates, state)``: lists of arrays
        [K, ...] and [...], of the same dtypes.
      extras: "losses", as for :class:`Weighting`.
      named: as of :class:`Weighting`.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> median = mmp.Aggregator(
      ...     init=lambda leaves: (),
      ...     combine=lambda leaves, state: (
      ...         [jnp.median(x, axis=0) for x in leaves], state
      ...     ),
      ... )
      >>> tx = mmp.aggregate(median, 3)
      >>> grads = jnp.array([[1.0, 5.0], [2.0, -9.0], [90.0, 6.0]])
      >>> print(tx.update(grads, tx.init(jnp.zeros(2)))[0])
      [2. 5.]
    """

    init: Callable[[Sequence[jax.ShapeDtypeStruct]], State]
    combine: Callable[..., tuple[list[jax.Array], State]]
    extras: tuple[str, ...] = ()
    named: Callable[[Names, Names], Aggregator] | None = None


Rule = TypeVar("Rule", Weighting, LossWeighting, Aggregator)


def for_names(rule: Rule, names: Names, objectives: Names) -> Rule:
    """The rule for a group of objectives with these names, among all."""
    return rule if rule.named is None else rule.named(names, objectives)


def stateless(weights: Callable[[jax.Array], jax.Array]) -> Weighting:
    """A weighting from a function of the Gramian alone."""
    return Weighting(lambda _: (), lambda gramian, state: (weights(gramian), state))


def of_rows(weights: Callable[[jax.Array, jax.Array], jax.Array]) -> Weighting:
    """A weighting without state, of gradients that come each in a scale of its own."""

    def found(
        gramian: jax.Array, state: State, rows: jax.Array | None = None
    ) -> tuple[jax.Array, State]:
        return weights(gramian, rows_or_ones(rows, gramian)), state

    return Weighting(lambda _: (), found, ("rows",))


def without_derivative(
    name: str, weights: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    """The same function of a Gramian, with our own sentence where JAX would give its.

    Its solver loops until it is done: nothing can be pulled back through that.
    """
    found = jax.custom_jvp(weights)

    def refuse(primals: Any, tangents: Any) -> Any:
        raise NotImplementedError(
            f"{name}: its weights have no derivative here. Put jax.lax.stop_gradient "
            "around the gradients or the update, or take a rule that has one: "
            "mmpareto, mgda, upgrad, dualproj, pcgrad, imtl_g, config, nash_mtl, "
            "fairgrad."
        )

    found.defjvp(refuse)
    return found


def rows_or_ones(rows: jax.Array | None, gramian: jax.Array) -> jax.Array:
    """The scales [K] of the rows that the Gramian was computed of; by default 1."""
    return jnp.ones_like(gramian[0]) if rows is None else rows


def softmax(x: jax.Array) -> jax.Array:
    """Of [K] numbers of any size.

    A compiler may compute the largest a second time, rounded in another way. The
    difference of the two is to be no more than zero, whatever their last digits are.
    """
    largest = jnp.argmax(x)
    below = jnp.minimum(x - x[largest], 0.0)
    parts = jnp.exp(jnp.where(jnp.arange(len(x)) == largest, 0.0, below))
    return jnp.where(jnp.isfinite(x).all(), parts / jnp.sum(parts), jnp.nan)


def required(name: str, losses: jax.Array | None) -> jax.Array:
    """The losses, or an error that says how to hand them over."""
    if losses is None:
        raise ValueError(
            f"{name}: needs the losses; call tx.update(grads, state, params, "
            "losses=losses)."
        )
    return losses


def zero_where_stationary(weights: jax.Array, gramian: jax.Array) -> jax.Array:
    """Zero weights where their sum of gradients is below its Gramian's noise floor.

    The test is |d|² ≤ 10 eps (Σ |wₖ| |gₖ|)²: such a direction is rounding error.
    """
    square = weights @ gramian @ weights
    reach = jnp.abs(weights) @ jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0.0))
    noise = square <= 10 * np.finfo(gramian.dtype).eps * reach**2
    return jnp.where(noise, 0.0, weights)
