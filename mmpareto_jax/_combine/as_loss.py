"""A scalar loss whose gradient is a combined one, for whoever calls ``jax.grad``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax._combine.combined_grads import (
    CombinedGrads,
    check_combination,
    combined_grads,
)
from mmpareto_jax._combine.custom_gradient import with_combined_gradient
from mmpareto_jax._combine.program import has_scope, program_of
from mmpareto_jax._gradients.backward import is_pulled
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree
from mmpareto_jax._gradients.losses import check_function

# By this it is recognised within another one.
_SCOPE = "mmp.as_loss"


class LossState(NamedTuple):
    """State of a loss that carries its rule.

    Attributes:
      combination: what ``combined_grads`` keeps. :func:`diagnostics` reads it.
    """

    combination: PyTree


class CombinedLoss:
    """What ``as_loss`` returns: a function, and the state that it begins with.

    ``loss(params, *args, **kwargs)`` returns the value; with `has_aux`, ``(value,
    aux)``. ``loss(params, state, *args, **kwargs)`` returns ``(value, state)``; with
    `has_aux`, ``(value, (state, aux))``. The state returned is the next one where the
    gradient is computed, too, and the given one where only the value is.

    Attributes:
      losses_fn: as given to :func:`as_loss`.
      combine: from losses that return aux to their ``CombinedGrads``.
      has_aux: whether `losses_fn` returns ``(losses, aux)``.
    """

    def __init__(
        self,
        losses_fn: Callable[..., Any],
        combine: Callable[[Callable[..., Any]], CombinedGrads],
        has_aux: bool,
    ):
        self.losses_fn, self.combine, self.has_aux = losses_fn, combine, has_aux

    def init(self, params: PyTree, *args: Any, **kwargs: Any) -> LossState:
        """The state before the first step.

        Args:
          params: the parameters, all floating arrays of which are to be differentiated.
          *args: the further arguments of the losses.
          **kwargs: their keyword arguments. All arrays may be ``jax.ShapeDtypeStruct``.

        Returns:
          The state.
        """
        program = program_of(self.losses_fn, params, args, kwargs, self.has_aux)
        own = {
            path: x
            for path, x in zip(program.names, program.values, strict=False)
            if jnp.issubdtype(jnp.result_type(x), jnp.floating)
        }
        step = self.combine(program.run_with)
        return LossState(step.init(own, program.values))

    def __call__(self, params: PyTree, *args: Any, **kwargs: Any) -> Any:
        """The plain sum of the losses."""
        if is_pulled():
            raise ValueError(
                "as_loss: its gradient is combined already, and would be combined "
                "twice here; give the function that returns the losses themselves."
            )
        given = args[0] if args and isinstance(args[0], LossState) else None
        if given is not None:
            args = args[1:]
        program = program_of(self.losses_fn, params, args, kwargs, self.has_aux)
        if has_scope(program.closed.jaxpr, "custom_vjp_call", _SCOPE):
            raise ValueError(
                "as_loss: `losses_fn` contains another as_loss, whose gradient would "
                "be combined twice; let it return those losses themselves."
            )
        call = with_combined_gradient(program, self.combine)
        before = None if given is None else jax.lax.stop_gradient(given.combination)
        with jax.named_scope(_SCOPE):
            value, after, aux = call(before, program.values)
        found = [] if given is None else [LossState(jax.lax.stop_gradient(after))]
        found += [program.aux(aux)] if self.has_aux else []
        if not found:
            return value
        return value, found[0] if len(found) == 1 else tuple(found)


def as_loss(
    losses_fn: Callable[..., Any],
    combination: Callable[[ObjectiveGroups], optax.GradientTransformationExtraArgs],
    groups: ObjectiveGroups | None = None,
    *,
    has_aux: bool = False,
    **options: Any,
) -> CombinedLoss:
    r"""A loss that carries its rule: ``jax.grad`` of it is the combined gradient.

    .. math:: \text{value} = \sum_k L_k, \quad \text{gradient of group } g = \sum_k
        a_{g,k} \nabla_{\theta_g} L_k, \quad a_g = \text{combination}(G_g)

    For trainers that call ``jax.grad`` themselves: it goes where the sum of the losses
    was. What comes out is what :func:`combined_grads` computes, in one ``custom_vjp``;
    without a gradient it costs the forward pass of the losses. The gradient is as long
    as the rule makes it: of K equal gradients the sum for ``uniform``, the mean for
    ``mgda`` or ``upgrad``, γ times the sum for ``mmpareto``; without Adam that is a
    factor on the learning rate.

    The parameters are those of `params` that are differentiated. With a filter, as
    ``nnx.DiffState(0, nnx.LoRAParam)`` is one, or with ``stop_gradient`` around them,
    the others have no part in the combination, and cost nothing. What else `losses_fn`
    reads, in `args` or closed over, has the derivative of the plain sum; aux has the
    derivative that it has in `losses_fn`.

    A rule that remembers (``pcgrad``, ``nash_mtl``, ``every=10``, a schedule of γ) has
    a state: ``state = loss.init(params, *args)``, then ``jax.value_and_grad(loss,
    has_aux=True)(params, state, *args)`` gives ``(value, state), grads`` (JAX's own
    `has_aux`, for the state is returned beside the value). No derivative goes through
    the state, and only a call that is differentiated changes it.

    Where a trainer accumulates, it takes the mean of *combined* gradients; for the
    combined gradient of the whole batch let `losses_fn` go through the micro-batches.
    ``jax.checkpoint`` belongs into `losses_fn`, too: around the loss it computes the
    gradients twice.

    Args:
      losses_fn: as for :func:`value_and_objective_grads`; of its arguments what is no
        array is taken as it is.
      combination: as for :func:`combined_grads`.
      groups: what `combination` is given; by default the groups are found.
      has_aux: whether `losses_fn` returns ``(losses, aux)``.
      **options: ``every``, ``length``, ``keep`` and ``pullback`` of
        :func:`combined_grads`.

    Returns:
      A function of ``(params, *args, **kwargs)``, see ``CombinedLoss``. Its gradient is
      linear in the cotangent, so that a factor on the value is a factor on the
      gradient; in half precision put it on the losses, which are pulled back before.

    Raises:
      ValueError: what :func:`combined_grads` raises. When a gradient is taken: a rule
        that remembers has no state; a state is one for other parameters; the value
        varies over a mesh axis over which a parameter does not. When it is called:
        ``as_loss`` within ``as_loss`` or ``combined_grads``; `losses_fn` changes
        its parameters.
      NotImplementedError: it is differentiated twice.
      TypeError: what :func:`combined_grads` raises; it is differentiated forwards.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> def losses_fn(params, x):
      ...     y = jnp.tanh(x @ params["trunk"]) @ params["heads"]
      ...     return {"left": jnp.mean(y[:, 0] ** 2), "right": jnp.mean(y[:, 1] ** 2)}
      >>> loss = mmp.as_loss(losses_fn, mmp.mmpareto)
      >>> params, x = {"trunk": jnp.eye(3), "heads": jnp.ones((3, 2))}, jnp.ones((4, 3))
      >>> value, grads = jax.jit(jax.value_and_grad(loss))(params, x)
      >>> print(value, sum(losses_fn(params, x).values()))
      10.440461 10.440461
    """
    if not isinstance(groups, ObjectiveGroups | None):
        raise TypeError(
            "as_loss: `groups` must be an ObjectiveGroups or None, got "
            f"{type(groups).__name__}."
        )
    check_function(losses_fn, "as_loss", "losses_fn")
    check_combination(combination, "as_loss")
    own = combination if groups is None else lambda _: combination(groups)

    def combine(losses_fn: Callable[..., Any]) -> CombinedGrads:
        return combined_grads(losses_fn, own, has_aux=True, **options)

    combine(losses_fn)  # what is wrong with the options is said here
    return CombinedLoss(losses_fn, combine, has_aux)
