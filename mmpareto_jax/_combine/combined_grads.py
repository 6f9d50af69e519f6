"""From a function of several losses to one gradient, in as little as that needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import optax

from mmpareto_jax import weightings
from mmpareto_jax._combine.aggregate import Aggregation
from mmpareto_jax._combine.refresh import Refresh, RefreshState, every_of
from mmpareto_jax._combine.weighted_pass import Step, unread_gramians
from mmpareto_jax._gradients.backward import pull_back
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree
from mmpareto_jax._gradients.losses import check_function
from mmpareto_jax._gradients.objectives import (
    bound,
    check_params,
    check_pullback,
    groups_found,
    objective_groups,
    rows_as_given,
    stacked_gradients,
)
from mmpareto_jax._gradients.pullback import Pullback
from mmpareto_jax.weightings import Aggregator, LossWeighting, Weighting


class CombinedGrads(NamedTuple):
    """What ``combined_grads`` returns.

    Attributes:
      groups: ``groups(params, *args, **kwargs) -> ObjectiveGroups``.
      init: ``init(params, *args, **kwargs) -> state``; arguments may be
        ``jax.ShapeDtypeStruct``.
      value_and_grads: ``value_and_grads(state, params, *args, **kwargs) -> ((losses,
        grads), state)``, or ``(((losses, aux), grads), state)`` with `has_aux`.
        Gradients have the structure, shapes and dtypes of the parameters.
    """

    groups: Callable[..., ObjectiveGroups]
    init: Callable[..., PyTree]
    value_and_grads: Callable[..., tuple[Any, PyTree]]


def combined_grads(
    losses_fn: Callable[..., Any],
    combination: Callable[[ObjectiveGroups], optax.GradientTransformationExtraArgs],
    *,
    has_aux: bool = False,
    every: int | Callable[[jax.Array], Any] = 1,
    length: Literal["guarded", "free"] = "guarded",
    keep: Literal["rows", "gramian"] = "rows",
    pullback: Pullback = "unroll",
) -> CombinedGrads:
    r"""A gradient of several losses that fits where ``jax.grad`` of one was.

    .. math:: d_g = \sum_k a_{g,k} \nabla_{\theta_g} L_k, \quad a_g =
        \text{combination}(G_g), \quad G_{g,ij} = \langle \nabla_{\theta_g} L_i,
        \nabla_{\theta_g} L_j \rangle

    for every group g of parameters: what ``combination(groups)`` makes of the stacked
    gradients of :func:`value_and_objective_grads`, without a leading axis, ready for
    any Optax optimiser. The groups are found at every trace. Where weights need no
    Gramian (with ``diagnostics=False`` those of losses, and ``uniform``, ``mean``,
    ``constant``, ``random``), one backward pass of the weighted losses is all there
    is: the price of a plain step.

    Args:
      losses_fn: as for :func:`value_and_objective_grads`.
      combination: groups -> the transformation from stacked to plain gradients, for
        example ``mmp.mmpareto``, or ``functools.partial(mmp.aggregate,
        mmp.weightings.mgda())``. It may make smaller groups of its own (layers), whose
        objectives are those that reach their parameters.
      has_aux: whether `losses_fn` returns ``(losses, aux)``.
      every: weights are found at every so many steps and kept between: an integer, or
        a function of the step (int32 [], from 0) that gives the number of steps to the
        next time, as a schedule does; below 1 is 1. A step that finds weights pulls all
        objectives back. All others are one backward pass of the weighted losses, the
        price of a plain step. Both kinds are in one compiled program. A rule's own
        state moves on when it finds weights: a schedule of γ or a running mean counts
        those times, not steps. Rules that need no Gramian find weights at every step.
      length: "guarded": between, a group's gradient is shortened to the norm that it
        had when its weights were found, where it would be longer. Weights belong to the
        gradients that they were found for. Those that restore the magnitude along a
        gradient that has almost vanished may be 10,000 and more, and when the gradient
        grows again, so does the step. "free" leaves the length as it comes.
      keep: what is kept of the objectives' gradients until they are combined. "rows":
        all of them, K times the shared parameters. "gramian": of every parameter its
        inner products alone, and when the weights are known, a second backward pass
        of the weighted losses gives their sum. Where all is shared that takes the time
        of 2K + 3 forward passes instead of 2K + 1, and the memory of the plain gradient
        and twice K times the largest parameter. (On a CPU XLA orders operations for
        concurrency; for memory it takes the option ``xla_cpu_scheduler_type =
        "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"``.)
      pullback: as in :func:`value_and_objective_grads`.

    Returns:
      A triple of functions, see ``CombinedGrads``. What they return goes into any Optax
      optimiser; no ``mmpareto`` comes after it.

    Raises:
      TypeError: `combination` is no function of groups; with "gramian" or `every`, it
        returns something else than ``mmpareto`` or ``aggregate`` does (a chain, say); a
        state of another `every`.
      ValueError: an unknown `keep`, `length` or `pullback`; an `every` that is below 1,
        no integer, or traced; when the functions are called, what
        :func:`objective_groups` raises, groups that `combination` made of itself and
        that disagree with what the losses reach; and with "gramian" or `every`, a rule
        that is an ``Aggregator``, which combines the rows themselves.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import mmpareto_jax as mmp
      >>> def losses_fn(params, x):
      ...     y = jnp.tanh(x @ params["trunk"]) @ params["heads"]
      ...     return {"left": jnp.mean(y[:, 0] ** 2), "right": jnp.mean(y[:, 1] ** 2)}
      >>> step = mmp.combined_grads(losses_fn, mmp.mmpareto, keep="gramian")
      >>> params, x = {"trunk": jnp.eye(3), "heads": jnp.ones((3, 2))}, jnp.ones((4, 3))
      >>> state = step.init(params, x)
      >>> (losses, grads), state = step.value_and_grads(state, params, x)
      >>> tx = optax.adam(1e-3)  # any, for these are ordinary gradients
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> print(jax.tree.map(jnp.shape, updates))
      {'heads': (3, 2), 'trunk': (3, 3)}
    """
    check_pullback(pullback, "combined_grads")
    if keep not in ("rows", "gramian"):
        raise ValueError(
            f"combined_grads: `keep` must be 'rows' or 'gramian', got {keep!r}."
        )
    if length not in ("guarded", "free"):
        raise ValueError(
            f"combined_grads: `length` must be 'guarded' or 'free', got {length!r}."
        )
    check_function(losses_fn, "combined_grads", "losses_fn")
    check_combination(combination, "combined_grads")
    schedule = every_of(every)
    refresh = schedule and Refresh(schedule, length == "guarded", keep)

    def groups(params: PyTree, *args: Any, **kwargs: Any) -> ObjectiveGroups:
        return objective_groups(losses_fn, params, *args, has_aux=has_aux, **kwargs)

    def init(params: PyTree, *args: Any, **kwargs: Any) -> PyTree:
        transformation = transformation_of(combination, groups(params, *args, **kwargs))
        if refresh is None or not _reads(transformation):
            return transformation.init(params)
        return refresh.init(_aggregation(transformation, "every"), params)

    def value_and_grads(
        state: PyTree, params: PyTree, *args: Any, **kwargs: Any
    ) -> tuple[Any, PyTree]:
        check_params(params, "combined_grads")
        pulled = pull_back(bound(losses_fn, args, kwargs), params, has_aux)
        found = groups_found(pulled, params)
        transformation = transformation_of(combination, found)
        # They may be its own, of layers for example.
        own = getattr(transformation, "groups", found)
        rows = rows_as_given(own, pulled.names, params, pulled.rows, "combined_grads")
        step = Step(pulled, own, rows, params, pullback)
        if isinstance(state, RefreshState) and refresh is None:
            raise TypeError(
                "combined_grads: this state is of another `every`; take that of init."
            )
        if not _reads(transformation):
            gramians = unread_gramians(own, params)
            known, state = step.weigh(transformation, gramians, state)
            grads = step.weighted(transformation, known, again=False)
        elif refresh is not None:
            rule = _aggregation(transformation, "every")
            grads, state = refresh.step(step, rule, state)
        elif keep == "gramian":
            rule = _aggregation(transformation, "keep='gramian'")
            known, state = step.weigh(rule, step.gramians(rule), state)
            grads = step.weighted(rule, known, again=True)
        else:
            stacked = stacked_gradients(pulled, rows, params, pullback)
            grads, state = transformation.update(
                stacked, state, params, losses=pulled.losses
            )
        values = (pulled.losses, pulled.aux) if has_aux else pulled.losses
        return (values, grads), state

    return CombinedGrads(groups, init, value_and_grads)


def check_combination(combination: Any, caller: str) -> None:
    """Raises unless it can be a function from groups to a transformation."""
    is_rule = isinstance(combination, Weighting | LossWeighting | Aggregator)
    if is_rule or any(combination is x for x in vars(weightings).values()):
        raise TypeError(
            f"{caller}: `combination` must be a function of groups; of a rule "
            "make one by functools.partial(mmp.aggregate, rule)."
        )
    if isinstance(combination, optax.GradientTransformation):
        raise TypeError(
            f"{caller}: `combination` must be a function of groups: mmp.mmpareto "
            "itself, not what it returns."
        )
    check_function(combination, caller, "combination")


def transformation_of(
    combination: Callable[..., Any], groups: ObjectiveGroups
) -> optax.GradientTransformationExtraArgs:
    """What a combination makes of groups; raises unless that is a transformation."""
    made = combination(groups)
    if not isinstance(made, optax.GradientTransformation):
        raise TypeError(
            "combined_grads: `combination` must return an "
            f"optax.GradientTransformation, got {type(made).__name__}."
        )
    return made


def _reads(transformation: Any) -> bool:
    """Whether anything reads the Gramians."""
    return getattr(transformation, "reads_gramians", True)


def _aggregation(transformation: Any, option: str) -> Aggregation:
    if not isinstance(transformation, Aggregation):
        raise TypeError(
            f"combined_grads: with {option} `combination` must return what "
            "mmp.mmpareto or mmp.aggregate returns; an optimiser comes after "
            f"combined_grads. Got {type(transformation).__name__}."
        )
    if transformation.weigh is None:
        raise ValueError(
            "combined_grads: this rule combines the rows of gradients themselves, and "
            f"has no weights that {option} could go on with."
        )
    return transformation
