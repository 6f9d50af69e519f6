"""Loss weightings before differentiation: one scalar loss, one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mmpareto_jax._groups import PyTree
from mmpareto_jax._losses import named_scalars, split_aux
from mmpareto_jax.weightings import LossWeighting


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
      (``last_batch_losses`` of ``famo``) go to it.

    Raises:
      TypeError: `weighting` is not a ``LossWeighting``; a loss is not real and
        floating.
      ValueError: `fun` does not return scalar losses.

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

    def loss(
        params: PyTree, state: Any, *args: Any, **kwargs: Any
    ) -> tuple[jax.Array, Any]:
        extras = {k: kwargs.pop(k) for k in weighting.extras if k in kwargs}
        out = fun(params, *args, **kwargs)
        losses, aux = split_aux(out) if has_aux else (out, None)
        values = jnp.stack(named_scalars(losses)[1])
        given = {k: jnp.stack(named_scalars(x)[1]) for k, x in extras.items()}
        weights, state = weighting.weights(lax.stop_gradient(values), state, **given)
        total = jnp.sum(lax.stop_gradient(weights) * values)
        return total, (losses, state, aux) if has_aux else (losses, state)

    return loss
