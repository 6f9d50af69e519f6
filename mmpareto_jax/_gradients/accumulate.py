"""Micro-batches: gradients are summed per objective, and combined once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax._gradients.groups import PyTree, named_leaves
from mmpareto_jax._gradients.losses import check_function

Args = ParamSpec("Args")
Values = TypeVar("Values")


def accumulate(
    value_and_grads: Callable[Args, Values],
    num_micro_batches: int,
    *,
    argnum: int = 1,
    has_aux: bool = False,
) -> Callable[Args, Values]:
    r"""Computes losses and stacked gradients of a batch in equal parts.

    .. math:: L_k = \frac1n \sum_{i=1}^n L_k^{(i)}, \qquad g_k = \frac1n \sum_{i=1}^n
        g_k^{(i)}

    For losses that are means over examples this is the large batch, with the memory of
    a small one: the objectives' gradients are averaged before they are combined.
    ``optax.MultiSteps`` averages *after* the combination, which is another update:
    each part has its own conflicts and weights.

    Args:
      value_and_grads: what :func:`value_and_objective_grads` returned.
      num_micro_batches: n; the leading axis of every array of the batch must be a
        multiple of it.
      argnum: position of the batch among the positional arguments, 0 being ``params``
        and -1 the last of them; the other arguments are the same for every part.
      has_aux: as given to :func:`value_and_objective_grads`. The aux of the parts comes
        stacked, [n, ...]; layers with batch statistics see one part at a time.

    Returns:
      A function of the same arguments, with the same results. Sums are float32, or
      float64 for float64 gradients; gradients come back in their own dtypes.

    Raises:
      TypeError: an argument is of another type.
      ValueError: n < 1; `argnum` is the position of the parameters, or of no argument
        (a batch given by keyword); the batch has no arrays; one of its leaves cannot
        be divided, named by its path.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> def losses_fn(w, x):
      ...     return {"a": jnp.mean((x - w) ** 2), "b": jnp.mean((x + w) ** 2)}
      >>> step = mmp.accumulate(mmp.value_and_objective_grads(losses_fn), 2)
      >>> losses, grads = step(jnp.ones(()), jnp.arange(4.0))
      >>> print(grads)
      [-1.  5.]
    """
    check_function(value_and_grads, "accumulate", "value_and_grads")
    for name, x in (("num_micro_batches", num_micro_batches), ("argnum", argnum)):
        if not isinstance(x, int | np.integer):
            raise TypeError(f"accumulate: {name} must be an integer, got {x!r:.60}.")
    if num_micro_batches < 1:
        raise ValueError(
            f"accumulate: num_micro_batches must be >= 1, got {num_micro_batches}."
        )
    if argnum == 0:
        raise ValueError(
            "accumulate: argnum must be the position of the batch, got 0, which is "
            "that of the parameters."
        )

    def position(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        where = argnum + len(args) if argnum < 0 else argnum
        if not 0 < where < len(args):
            raise ValueError(
                f"accumulate: argnum={argnum} must be the position of the batch after "
                f"the parameters, got {len(args)} positional argument(s) and the "
                f"keywords {tuple(kwargs)}; give the batch by position."
            )
        return where

    def split(path: str, x: Any) -> jax.Array:
        shape = jnp.shape(x)
        if not shape or shape[0] % num_micro_batches:
            raise ValueError(
                f"accumulate: leaf {path!r} of the batch (argument {argnum}) has shape "
                f"{shape}; its leading axis must be a multiple of {num_micro_batches}."
            )
        part = shape[0] // num_micro_batches
        return jnp.reshape(x, (num_micro_batches, part, *shape[1:]))

    def accumulated(*args: Any, **kwargs: Any) -> Any:
        where = position(args, kwargs)
        leaves = [split(path, x) for path, x in named_leaves(args[where])]
        if not leaves:
            raise ValueError(
                f"accumulate: the batch, argument {where}, must have arrays to divide, "
                f"got {args[where]!r}."
            )
        batches = jax.tree.unflatten(jax.tree.structure(args[where]), leaves)

        def part(batch: PyTree) -> tuple[PyTree, Any]:
            own = (*args[:where], batch, *args[where + 1 :])
            out: Any = value_and_grads(*own, **kwargs)
            values, grads = out
            losses, aux = values if has_aux else (values, None)
            return (losses, grads), aux

        first = jax.tree.map(lambda x: x[0], batches)
        like, _ = jax.eval_shape(part, first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, wide(x)), like)

        def add(total: PyTree, batch: PyTree) -> tuple[PyTree, Any]:
            found, aux = part(batch)
            return jax.tree.map(lambda a, b: a + b.astype(a.dtype), total, found), aux

        total, aux = lax.scan(add, zeros, batches)
        losses, grads = jax.tree.map(
            lambda x, own: (x / num_micro_batches).astype(own.dtype), total, like
        )
        return ((losses, aux) if has_aux else losses), grads

    return accumulated
