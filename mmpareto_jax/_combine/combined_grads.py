"""From a function of several losses to one gradient, in as little as that needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax._combine.aggregate import Aggregation
from mmpareto_jax._combine.kinds import Weights
from mmpareto_jax._gradients.backward import Pulled, pull_back
from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree, named_leaves
from mmpareto_jax._gradients.lanes import gradient, in_order
from mmpareto_jax._gradients.mixes import mixes_of
from mmpareto_jax._gradients.objectives import (
    bound,
    check_params,
    check_pullback,
    groups_found,
    objective_groups,
    rows_as_given,
)
from mmpareto_jax._gradients.pullback import Pullback
from mmpareto_jax._gradients.reach import Rows
from mmpareto_jax._gramians.gramian import Gramians, power_below, unread
from mmpareto_jax._gramians.piecewise import Piece, joined, piece


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
      TypeError: with "gramian", `combination` returns something else than ``mmpareto``
        or ``aggregate`` does (a chain, say).
      ValueError: an unknown `keep` or `pullback`; when the functions are called, what
        :func:`objective_groups` raises, groups that `combination` made of itself and
        that disagree with what the losses reach; and with "gramian", a rule that is an
        ``Aggregator``, which combines the rows themselves.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import mmpareto_jax as mmp
      >>> def losses_fn(params, x):
      ...     features = x * params["encoder"]
      ...     return {
      ...         "joint": jnp.sum(features * params["head"]),
      ...         "unimodal": jnp.sum(features**2),
      ...     }
      >>> step = mmp.combined_grads(losses_fn, mmp.mmpareto, keep="gramian")
      >>> params = {"encoder": jnp.array([1.0, 2.0]), "head": jnp.array([1.0, -1.0])}
      >>> state = step.init(params, 2.0)
      >>> (losses, grads), state = step.value_and_grads(state, params, 2.0)
      >>> print(grads["encoder"].shape, grads["head"])  # of the head joint alone
      (2,) [2. 4.]
    """
    check_pullback(pullback, "combined_grads")
    if keep not in ("rows", "gramian"):
        raise ValueError(
            f"combined_grads: `keep` must be 'rows' or 'gramian', got {keep!r}."
        )

    def groups(params: PyTree, *args: Any, **kwargs: Any) -> ObjectiveGroups:
        return objective_groups(losses_fn, params, *args, has_aux=has_aux, **kwargs)

    def init(params: PyTree, *args: Any, **kwargs: Any) -> PyTree:
        return combination(groups(params, *args, **kwargs)).init(params)

    def value_and_grads(
        state: PyTree, params: PyTree, *args: Any, **kwargs: Any
    ) -> tuple[Any, PyTree]:
        check_params(params, "combined_grads")
        pulled = pull_back(bound(losses_fn, args, kwargs), params, has_aux)
        found = groups_found(pulled, params)
        transformation = combination(found)
        # They may be its own, of layers for example.
        own = getattr(transformation, "groups", found)
        rows = rows_as_given(own, pulled.names, params, pulled.rows, "combined_grads")
        step = _Step(pulled, own, rows, params, pullback)
        known = not getattr(transformation, "reads_gramians", True)
        if keep == "gramian" or known:
            grads, state = step.weighted(_aggregation(transformation), state)
        else:
            grads, state = transformation.update(
                step.stacked(), state, params, losses=pulled.losses
            )
        values = (pulled.losses, pulled.aux) if has_aux else pulled.losses
        return (values, grads), state

    return CombinedGrads(groups, init, value_and_grads)


class _Step(NamedTuple):
    """What one call has to go on."""

    pulled: Pulled
    groups: ObjectiveGroups
    rows: list[Rows]  # per parameter, in the order of its group
    params: PyTree
    pullback: Pullback

    def stacked(self) -> PyTree:
        """The gradients of the objectives, as transformations take them."""
        leaves, structure = jax.tree.flatten(self.params)
        swept = self.pulled.objectives(self.pullback)
        each = zip(swept, self.rows, leaves, strict=True)
        return jax.tree.unflatten(structure, [gradient(*x) for x in each])

    def weighted(self, rule: Aggregation, state: PyTree) -> tuple[PyTree, PyTree]:
        """The gradient of weighted losses, in a pass of its own; and the state."""
        named = named_leaves(self.params)
        gramians = self.gramians(rule)
        weights, everywhere, state = rule.weigh(
            gramians, state, losses=self.pulled.losses
        )
        names, paths = self.pulled.names, [path for path, _ in named]
        known = _known(weights, gramians, self.members())
        given: Any = known.groups
        if everywhere is not None:
            order = jnp.array([self.groups.objectives.index(x) for x in names])
            given = everywhere[order]
            size = _size(jnp.where(jnp.isfinite(given), given, 0))
            for path, rows in zip(paths, self.rows, strict=True):
                if rows:
                    finite = jnp.isfinite(given[jnp.array(rows)]).all()
                    own = jnp.where(finite, size, jnp.nan)
                    known.scales[path] = jnp.ones_like(size), own
            given = given / size
        mixes = mixes_of(self.groups, names, paths, given, known.leaves)
        again = rule.reads_gramians
        sums = self.pulled.mixed(self.pullback, mixes, again=again)
        for (path, _), x, rows in zip(named, sums, self.rows, strict=True):
            if len(rows) > 1:
                rule.check(path, x[None])
        leaves = [known.restored(*x) for x in zip(named, sums, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(self.params), leaves), state

    def members(self) -> dict[str, list[str]]:
        """Group -> the paths of its parameters, in order."""
        found: dict[str, list[str]] = {}
        for path, _ in named_leaves(self.params):
            found.setdefault(self.groups.group_of(path), []).append(path)
        return found

    def gramians(self, rule: Aggregation) -> dict[str, Gramians]:
        """Of each group of several objectives; of the rows nothing is kept."""
        params = dict(named_leaves(self.params))
        several = {
            name: (own, wide(*(params[path] for path in own)))
            for name, own in self.members().items()
            if len(self.groups.groups[name]) > 1
        }
        if not rule.reads_gramians:
            return {
                name: unread(len(self.groups.groups[name]), len(own), dtype)
                for name, (own, dtype) in several.items()
            }
        swept = self.pulled.objectives(self.pullback)
        found = dict(zip(params, zip(swept, self.rows, strict=True), strict=True))

        def of(path: str, dtype: jnp.dtype) -> Piece:
            x, rows = found[path]
            return piece(in_order(x, rows), dtype, rule.axis_names)

        return {
            name: joined([of(path, dtype) for path in own])
            for name, (own, dtype) in several.items()
        }


def _aggregation(transformation: Any) -> Aggregation:
    if not isinstance(transformation, Aggregation):
        raise TypeError(
            "combined_grads: with keep='gramian' `combination` must return what "
            "mmp.mmpareto or mmp.aggregate returns; an optimiser comes after "
            f"combined_grads. Got {type(transformation).__name__}."
        )
    if not transformation.has_weights:
        raise ValueError(
            "combined_grads: this rule combines the rows of gradients themselves, and "
            "has no weights: it needs keep='rows'."
        )
    return transformation


class _Known(NamedTuple):
    """Weights that a backward pass can begin with.

    Attributes:
      groups: group -> [K_g].
      leaves: path -> [K_g], for a parameter with weights of its own.
      scales: path -> what the pass's result is divided by, and then multiplied by.
    """

    groups: dict[str, jax.Array]
    leaves: dict[str, jax.Array]
    scales: dict[str, tuple[jax.Array, jax.Array]]

    def restored(self, named: tuple[str, Any], x: jax.Array) -> jax.Array:
        """A parameter's gradient, in its own dtype."""
        path, param = named
        if path not in self.scales:
            return x
        middle, size = self.scales[path]
        wide = jnp.promote_types(x.dtype, size.dtype)
        middle, size = middle.astype(wide), size.astype(wide)
        return (x.astype(wide) / middle * size).astype(param.dtype)


def _known(
    weights: Mapping[str, Weights],
    gramians: Mapping[str, Gramians],
    members: Mapping[str, list[str]],
) -> _Known:
    """The weights of the gradients themselves, as factors that are within range."""
    known = _Known({}, {}, {})
    for name, own in members.items():
        if name in gramians:
            middle = _middle(gramians[name].rows)
            relative = middle / gramians[name].rows
            given = weights[name]
            if given.leaves is None:
                size = _size(given.group)
                known.groups[name] = given.group / size * relative
                known.scales.update(dict.fromkeys(own, (middle, size)))
            for path, x in zip(own, given.leaves or (), strict=False):
                known.leaves[path] = x / _size(x) * relative
                known.scales[path] = middle, _size(x)
        elif name in weights:
            size = _size(weights[name].group)
            known.groups[name] = weights[name].group / size
            known.scales.update(dict.fromkeys(own, (jnp.ones_like(size), size)))
    return known


def _size(weights: jax.Array) -> jax.Array:
    """The power of two below the largest; NaN where one of them is not finite.

    So that it is seen in every number, and not only where a cotangent arrives.
    """
    largest = jnp.max(jnp.abs(weights))
    return jnp.where(jnp.isfinite(largest), power_below(largest), jnp.nan)


def _middle(rows: jax.Array) -> jax.Array:
    """The power of two halfway between the scales of the longest and the shortest."""
    exponents = jnp.frexp(rows)[1] - 1
    halfway = (jnp.max(exponents) + jnp.min(exponents)) // 2
    return jnp.ldexp(jnp.ones((), rows.dtype), halfway)
