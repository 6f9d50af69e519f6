"""Loss weightings before differentiation: one scalar loss, one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mmpareto_jax._gradients.groups import PyTree, named_leaves
from mmpareto_jax._gradients.losses import (
    by_name,
    check_function,
    named_scalars,
    split_aux,
    stacked,
)
from mmpareto_jax.weightings import LossWeighting
from mmpareto_jax.weightings._memory import kept
from mmpareto_jax.weightings._weighting import for_names


def scalarize(
    weighting: LossWeighting, fun: Callable[..., Any], *, has_aux: bool = False
) -> Callable[..., tuple[jax.Array, Any]]:
    r"""The weighted sum of an objective function's losses, as a scalar loss.

    .. math:: \sum_k w_k L_k, \quad w = \text{weighting}(L),\ \text{held constant}

    Its gradient is what ``aggregate(weighting, groups)`` makes of the gradients of all
    losses, for the price of one backward pass.

    Args:
      weighting: a ``LossWeighting``, for example ``mmp.weightings.dwa()``.
      fun: ``fun(params, *args, **kwargs)`` returns a mapping name -> scalar, or an
        array [K]; with `has_aux` a pair of that and anything.
      has_aux: whether it returns such a pair.

    Returns:
      ``f(params, state, *args, **kwargs) -> (loss, (losses, state))``, or
      ``(loss, (losses, state, aux))``, for ``jax.value_and_grad(f, has_aux=True)``. The
      first state is ``weighting.init(K)``. Keyword arguments that the weighting takes
      (``last_batch_losses`` of ``famo``) go to it: mappings by the names of the losses
      in whatever order, arrays [K] in the order in which `fun` returns the losses.

      The loss is float32, or float64 where one of the losses is, and so is what the
      weighting sees; its state keeps its dtypes. A step whose losses are not finite
      shows it in the loss and its gradient, and leaves the state as it was.

    Raises:
      TypeError: `weighting` is not a ``LossWeighting``; a loss is not real and
        floating.
      ValueError: `fun` does not return scalar losses, or two of one name; the state is
        not one for so many losses; an argument of the weighting has not one number
        for each loss.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> def losses_fn(w):
      ...     return {"a": jnp.sum(w**2), "b": jnp.sum((w - 2) ** 2)}
      >>> weighting = mmp.weightings.geometric_mean()
      >>> loss_fn = mmp.scalarize(weighting, losses_fn)
      >>> state = weighting.init(2)
      >>> grads, (losses, state) = jax.grad(loss_fn, has_aux=True)(jnp.ones(1), state)
      >>> print(grads)
      [0.]
    """
    if not isinstance(weighting, LossWeighting):
        raise TypeError(
            "scalarize: weighting must be a LossWeighting, which needs no gradients, "
            f"got {type(weighting).__name__}."
        )

    check_function(fun, "scalarize", "fun")

    def loss(
        params: PyTree, state: Any, *args: Any, **kwargs: Any
    ) -> tuple[jax.Array, Any]:
        extras = {k: kwargs.pop(k) for k in weighting.extras if k in kwargs}
        out = fun(params, *args, **kwargs)
        losses, aux = split_aux(out) if has_aux else (out, None)
        names, scalars = named_scalars(losses)
        _check_state(weighting, state, names)
        rule = for_names(weighting, names, names)
        values = stacked(scalars)
        given = {
            k: None
            if x is None
            else by_name("scalarize", k, x, names).astype(values.dtype)
            for k, x in extras.items()
        }
        seen = lax.stop_gradient(values)
        weights, after = rule.weights(seen, state, **lax.stop_gradient(given))
        state = kept(jnp.all(jnp.isfinite(seen)), after, state)
        weights = jnp.asarray(weights, values.dtype)
        total = jnp.sum(lax.stop_gradient(weights) * values)
        return total, (losses, state, aux) if has_aux else (losses, state)

    return loss


def _check_state(weighting: LossWeighting, state: Any, names: tuple[str, ...]) -> None:
    """Raises unless the state has the structure and shapes of one for these losses."""
    num = len(names)
    expected = jax.eval_shape(lambda: weighting.init(num))
    wanted = f"scalarize: state must be weighting.init({num}), for the losses {names}"
    found: Any = jax.tree.structure(state)
    if found != jax.tree.structure(expected):
        raise ValueError(f"{wanted}, got another structure: {found}.")
    leaves = zip(named_leaves(state), jax.tree.leaves(expected), strict=True)
    for (path, leaf), like in leaves:
        if jnp.shape(leaf) != like.shape:
            raise ValueError(
                f"{wanted}, got one whose leaf {path!r} has shape {jnp.shape(leaf)} "
                f"instead of {like.shape}."
            )
