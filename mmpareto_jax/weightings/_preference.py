"""What a rule is given for each objective: by position, or by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax.weightings._arguments import check_vector
from mmpareto_jax.weightings._weighting import Aggregator, Names, Rule

PerObjective: TypeAlias = "Sequence[float] | jax.Array | Mapping[str, float]"


def preference_of(
    name: str,
    preference: PerObjective | None,
    gramian: jax.Array,
    *,
    default: float,
    argument: str = "preference",
) -> jax.Array:
    """The preference [K] in the Gramian's dtype; `default` for each if none is given.

    Raises:
      ValueError: it is not a vector of the Gramian's K.
    """
    num = gramian.shape[0]
    if preference is None:
        return jnp.full((num,), default, gramian.dtype)
    vector = jnp.asarray(preference, gramian.dtype)
    if vector.shape != (num,):
        raise ValueError(
            f"{name}: {argument} must have shape ({num},), one number for each of the "
            f"group's objectives, got {vector.shape}."
        )
    return vector


def by_name(
    make: Callable[..., Rule],
    name: str,
    *,
    others: float | None = None,
    **given: PerObjective | None,
) -> Rule:
    """A rule some of whose arguments may be by name.

    Args:
      make: the rule, of these arguments as vectors.
      name: of the rule, for what is raised.
      others: what those objectives have that are not named; None: all have to be.
      **given: the arguments.

    Returns:
      ``make(**given)``, where none of them is a mapping; else a rule that becomes one
      for each group, whose objectives' names are known then.
    """
    mappings = {k: x for k, x in given.items() if isinstance(x, Mapping)}
    for argument, values in mappings.items():
        check_vector(name, argument, list(values.values()))
    if not mappings:
        return make(**given)

    def named(names: Names, objectives: Names) -> Rule:
        found = {}
        for argument, values in mappings.items():
            for one in values:
                _check_known(name, argument, one, objectives)
            lacking = [x for x in names if x not in values]
            if lacking and others is None:
                raise ValueError(
                    f"{name}: {argument} has none for the objective {lacking[0]!r}."
                )
            # In their own precision, whatever is enabled now.
            found[argument] = np.array([values.get(x, others) for x in names], float)
        return make(**{**given, **found})

    def of_size(num: int) -> Rule:
        return make(**{**given, **{k: jnp.ones((num,)) for k in mappings}})

    return _deferred(of_size, named, f"{name}: {', '.join(mappings)}")


def by_position(
    make: Callable[[int], Rule], name: str, argument: str, one: int | str
) -> Rule:
    """A rule that is told one of a group's objectives, by its position or its name.

    Args:
      make: the rule, of the position.
      name: of the rule, for what is raised.
      argument: its name.
      one: which objective.
    """
    if not isinstance(one, str):
        return make(one)

    def named(names: Names, objectives: Names) -> Rule:
        _check_known(name, argument, one, objectives)
        if one not in names:
            raise ValueError(
                f"{name}: {argument} is {one!r}, but a group has the objectives "
                f"{', '.join(names)} alone."
            )
        return make(names.index(one))

    return _deferred(lambda _: make(0), named, f"{name}: {argument}")


def _check_known(name: str, argument: str, one: str, objectives: Names) -> None:
    if one not in objectives:
        raise ValueError(
            f"{name}: {argument} names {one!r}, which is no objective; they are "
            f"{', '.join(objectives)}."
        )


def _deferred(
    of_size: Callable[[int], Rule], named: Callable[[Names, Names], Rule], what: str
) -> Rule:
    """A rule that becomes one where the objectives' names are known.

    Args:
      of_size: the rule for so many objectives, whatever it is given for them: its
        state is the same.
      named: the rule for a group with these objectives, among all.
      what: is by name, for what is raised.
    """

    def init(shape: Any) -> Any:
        num = shape if isinstance(shape, int) else shape[0].shape[0]
        return of_size(num).init(shape)

    def unnamed(*_: Any, **__: Any) -> NoReturn:
        raise ValueError(
            f"{what} is by name, and the objectives have none here; take the rule in "
            "mmp.aggregate or mmp.scalarize, or give it by position."
        )

    like = of_size(2)
    if isinstance(like, Aggregator):
        return like._replace(init=init, combine=unnamed, named=named)
    return like._replace(init=init, weights=unnamed, named=named)
