"""What the gradients of several losses have in common, read without keeping them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._combine.checks import check_axes, names_of_axes
from mmpareto_jax._gradients.backward import pull_back
from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree, named_leaves
from mmpareto_jax._gradients.lanes import in_order
from mmpareto_jax._gradients.losses import as_array, check_function
from mmpareto_jax._gradients.objectives import (
    bound,
    check_params,
    check_pullback,
    groups_found,
    rows_as_given,
)
from mmpareto_jax._gradients.pullback import Pullback
from mmpareto_jax._gradients.stacks import Stack
from mmpareto_jax._gramians.gramian import Gramians
from mmpareto_jax._gramians.piecewise import Piece, joined, piece
from mmpareto_jax._probe.reading import reading
from mmpareto_jax._probe.result import Probe


def probe(
    losses_fn: Callable[..., Any],
    groups: ObjectiveGroups | None = None,
    *,
    layers: bool = False,
    has_aux: bool = False,
    axis_name: str | Sequence[str] | None = None,
    pullback: Pullback = "unroll",
) -> Callable[..., Probe]:
    """Makes a function that looks at several losses' gradients, and changes nothing.

    For those who train with the plain sum, or with any rule: called every n steps on a
    batch it says where gradients conflict, whether the sum raises an objective, how
    much any other weighting could turn it, and, given the optimiser's update, whether
    what is applied after momentum, Adam or Muon raises one.

    It takes the time of one step with K backward passes. Of the objectives' gradients
    it keeps inner products only, so the memory is that of the plain gradient and twice
    K times the largest parameter, as of :func:`combined_grads` with ``keep="gramian"``.

    A printed probe has two tables. The first: the smallest cosine and magnitude
    similarity of two gradients, their alignment, the share of conflicting pairs, and
    the min-norm point as "its length over the mean's, at its angle with the sum". The
    second, for each objective: the norm of its gradient, and how directly a step
    against the sum, and the update, descends it, as a cosine; ↑ where it is raised. See
    :class:`Reading`.

    Args:
      losses_fn: as for :func:`value_and_objective_grads`.
      groups: which objectives act on which parameters; by default they are found.
      layers: whether to tell of each layer, too: of parameters whose paths differ in
        the last name alone (``conv/kernel``, ``conv/bias``), if the same objectives
        reach them. A parameter that has a number there, or is at the top, is a layer.
      has_aux: whether `losses_fn` returns ``(losses, aux)``; aux is not looked at.
      axis_name: the mesh axes over which gradients are sharded inside
        ``jax.shard_map``, as for :func:`aggregate`.
      pullback: as in :func:`value_and_objective_grads`.

    Returns:
      A function of ``(params, *args, update=None, **kwargs)`` that returns a
      :class:`Probe`, for ``jax.jit`` too. ``update`` is what is added to the
      parameters, as ``tx.update`` of Optax returns it: a tree like them.

    Raises:
      TypeError: `groups` is of another type; when called, what
        :func:`objective_groups` raises, or an update that is not real and floating.
      ValueError: an unknown `pullback`; when called, what :func:`objective_groups`
        raises, groups that disagree with what the losses reach, no parameter that an
        objective reaches, an update that is not
        like the parameters, or gradients that vary over an unknown mesh axis.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import mmpareto_jax as mmp
      >>> def losses_fn(params, x):
      ...     y = params["trunk"] * x
      ...     return {"left": jnp.sum(y * params["head"]), "right": jnp.sum(y**2)}
      >>> params = {"trunk": jnp.array([1.0, 2.0]), "head": jnp.array([-3.0, 1.0])}
      >>> grads = jax.grad(lambda p: sum(losses_fn(p, 1.0).values()))(params)
      >>> tx = optax.adam(1e-3)
      >>> update, _ = tx.update(grads, tx.init(params), params)
      >>> found = jax.jit(mmp.probe(losses_fn))(params, 1.0, update=update)
      >>> print(found)
      parameters  cosine  similarity  alignment  conflicts  min-norm
      (all)       -0.12   0.99        -0.12      100 %      0.99 at 8°
      left+right  -0.14   0.94        -0.14      100 %      0.94 at 20°
      <BLANKLINE>
      parameters  objective  norm  by the sum  by the update
      (all)       left       3.87  0.60        0.90
                  right      4.47  0.72        0.22
      left+right  left       3.16  0.50        0.89
                  right      4.47  0.79        0.32
      left        left       2.24  1.00        0.95
      >>> print(found.groups["left+right"].update_raises)
      [False False]
    """
    check_function(losses_fn, "probe", "losses_fn")
    check_pullback(pullback, "probe")
    if groups is not None and not isinstance(groups, ObjectiveGroups):
        raise TypeError(
            "probe: `groups` must be an ObjectiveGroups or None, got "
            f"{type(groups).__name__}."
        )
    axis_names = names_of_axes(axis_name, "probe")

    def look(
        params: PyTree, *args: Any, update: PyTree | None = None, **kwargs: Any
    ) -> Probe:
        check_params(params, "probe")
        pulled = pull_back(bound(losses_fn, args, kwargs), params, has_aux)
        own = groups_found(pulled, params) if groups is None else groups
        reached = rows_as_given(own, pulled.names, params, pulled.rows, "probe")
        named = named_leaves(params)
        dtype = wide(*(leaf for _, leaf in named))
        steps = [None] * len(named) if update is None else _like(named, update)
        swept = pulled.objectives(pullback)
        pieces: dict[str, Piece] = {}
        for (path, _), x, rows, step in zip(named, swept, reached, steps, strict=True):
            if rows:
                stack = _with(in_order(x, rows), step, dtype)
                if axis_name is None or axis_names:
                    check_axes(path, stack[0], axis_names, "probe")
                pieces[path] = piece(stack, dtype, axis_names)
        if not pieces:
            raise ValueError("probe: no objective reaches any parameter.")
        return _told(pieces, own, pulled.names, layers=layers)

    return look


def _told(
    pieces: Mapping[str, Piece],
    groups: ObjectiveGroups,
    names: tuple[str, ...],
    *,
    layers: bool,
) -> Probe:
    """From the Gramian of every parameter that an objective reaches."""
    members = _gathered((groups.group_of(path), path) for path in pieces)
    gramians = {
        name: joined([pieces[path] for path in members[name]], of_leaves=False)
        for name in groups.groups
        if name in members
    }
    spread = [_spread(g, groups.groups[name], names) for name, g in gramians.items()]
    # As trees these have their keys in order, and a dict has them sorted.
    of_groups = OrderedDict(
        (name, reading(groups.groups[name], g)) for name, g in gramians.items()
    )
    of_layers = OrderedDict(
        (
            name,
            reading(
                groups.groups[groups.group_of(paths[0])],
                joined([pieces[path] for path in paths], of_leaves=False),
            ),
        )
        for name, paths in (_layers(pieces, groups) if layers else {}).items()
    )
    return Probe(reading(names, joined(spread, of_leaves=False)), of_groups, of_layers)


def _gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, path in pairs:
        found.setdefault(name, []).append(path)
    return found


def _layers(paths: Iterable[str], groups: ObjectiveGroups) -> dict[str, list[str]]:
    """Layer -> its parameters; a parameter alone where others have other objectives."""

    def layer(path: str) -> str:
        parent, _, last = path.rpartition("/")
        return path if last.isdecimal() or not parent else parent

    found: dict[str, list[str]] = {}
    for name, own in _gathered((layer(path), path) for path in paths).items():
        alike = len({groups.group_of(path) for path in own}) == 1
        found |= {name: own} if alike else {path: [path] for path in own}
    return found


def _spread(g: Gramians, own: Sequence[str], names: Sequence[str]) -> Piece:
    """A group's Gramian among all objectives, those that do not reach it with zeros."""
    # What comes after the objectives, an update, stays behind them.
    places = {name: k for k, name in enumerate(own)}
    nowhere = len(g.rows)
    index = [places.get(name, nowhere) for name in names]
    index += range(len(own), len(g.rows))
    where = np.array(index)
    padded = jnp.pad(g.total, (0, 1))
    # A row that is zero has no scale.
    rows = jnp.pad(jnp.where(jnp.diagonal(g.total) != 0, g.rows, 0), (0, 1))
    return Piece(padded[where][:, where], rows[where], ())


def _with(stack: Stack, step: jax.Array | None, dtype: jnp.dtype) -> Stack:
    """The gradients of a parameter, and its update as one row more."""
    if step is None:
        return stack
    if isinstance(stack, tuple):
        return (*stack, step)
    return jnp.concatenate([stack.astype(dtype), step.astype(dtype)[None]])


def _like(named: Sequence[tuple[str, Any]], update: PyTree) -> list[jax.Array]:
    """The leaves of an update, which must be those of the parameters."""
    given = named_leaves(update)
    if [path for path, _ in given] != [path for path, _ in named]:
        raise ValueError("probe: `update` must be a tree like the parameters.")
    found = []
    for (path, leaf), (_, param) in zip(given, named, strict=True):
        step = as_array("probe", f"`update` at {path!r}", leaf)
        if step.shape != param.shape:
            raise ValueError(
                f"probe: `update` has shape {step.shape} at {path!r}, and the "
                f"parameter {param.shape}."
            )
        if not jnp.issubdtype(step.dtype, jnp.floating):
            raise TypeError(
                f"probe: `update` must be real and floating, got {step.dtype} at "
                f"{path!r}."
            )
        found.append(step)
    return found
