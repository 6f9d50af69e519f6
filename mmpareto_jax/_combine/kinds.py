"""The three kinds of rules, as an update meets them: with one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp

from mmpareto_jax._combine.extras import Extras
from mmpareto_jax._gradients.groups import ObjectiveGroups
from mmpareto_jax._gradients.losses import as_array
from mmpareto_jax._gramians.gramian import Gramians, combine
from mmpareto_jax.weightings import Aggregator, LossWeighting, Weighting
from mmpareto_jax.weightings._memory import kept
from mmpareto_jax.weightings._weighting import Rule, for_names

State: TypeAlias = Any
OfLeaf: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Group(NamedTuple):
    """A group of parameters with several objectives.

    Attributes:
      name: of the group.
      gramians: of its gradients.
      leaves: path -> stacked gradient [K, ...].
    """

    name: str
    gramians: Gramians
    leaves: Mapping[str, jax.Array]


class Weights(NamedTuple):
    """The weights of a group.

    Attributes:
      group: [K], of the gradients divided by the Gramian's rows.
      leaves: the same for each leaf where they differ.
    """

    group: jax.Array
    leaves: Sequence[jax.Array] | None = None


class Applied(NamedTuple):
    """What a rule made of a group.

    Attributes:
      combined: an array [...] for each leaf, in their order.
      weights: None for a rule that has none.
    """

    combined: Sequence[jax.Array]
    weights: Weights | None


class Kind(Protocol):
    """A rule of any kind. Of a state it keeps nothing of a step that is not finite."""

    # Whether it looks at what is in the Gramians, which else need not be there.
    reads_gramians: bool

    def init(
        self, num: int, sizes: Mapping[str, Sequence[jax.ShapeDtypeStruct]]
    ) -> State:
        """The state before the first step.

        Args:
          num: of all objectives.
          sizes: name of a group -> its stacked gradients [K, ...].
        """

    def begin(self, extras: Extras, state: State) -> tuple[State, State]:
        """What the groups of one step share, and the state that they change."""

    def apply(
        self, group: Group, extras: Extras, shared: State, state: State
    ) -> tuple[Applied, State]:
        """Combines the gradients of one group."""

    def alone(self, group: str, extras: Extras, shared: State) -> jax.Array | None:
        """[1], the weight of a single objective; None where that passes unchanged."""


@runtime_checkable
class Weighs(Kind, Protocol):
    """A rule that finds weights, for which it needs no rows."""

    def weigh(
        self, group: Group, extras: Extras, shared: State, state: State
    ) -> tuple[Weights, State]:
        """The weights of one group; its leaves are not looked at."""

    def everywhere(self, shared: State) -> jax.Array | None:
        """[K] of all objectives, if weights are the same in every group."""

    def apply(
        self, group: Group, extras: Extras, shared: State, state: State
    ) -> tuple[Applied, State]:
        """Combines the gradients of one group by its weights."""
        weights, state = self.weigh(group, extras, shared, state)
        leaves, rows = group.leaves.values(), group.gramians.rows
        each = weights.leaves or [weights.group] * len(leaves)
        pairs = zip(each, leaves, strict=True)
        return Applied(
            [combine(own, leaf, rows) for own, leaf in pairs], weights
        ), state


def kind_of(
    rule: Weighting | LossWeighting | Aggregator,
    of_leaf: OfLeaf | None,
    groups: ObjectiveGroups,
) -> Kind:
    """The rule with the interface of its kind; `of_leaf` as in ``transformation``."""
    if isinstance(rule, LossWeighting):
        return _OfLosses(for_names(rule, groups.objectives, groups.objectives))
    if isinstance(rule, Aggregator):
        return _OfLeaves(_of_groups(rule, groups))
    return _OfGramian(_of_groups(rule, groups), of_leaf)


def _of_groups(rule: Rule, groups: ObjectiveGroups) -> dict[str, Rule]:
    """Group of several objectives -> the rule for it."""
    return {
        group: for_names(rule, names, groups.objectives)
        for group, names in groups.groups.items()
        if len(names) > 1
    }


class _PerGroup:
    """Rules that look at each group by itself, with a state for each."""

    def begin(self, extras: Extras, state: State) -> tuple[State, State]:
        del extras
        return None, dict(state)

    def alone(self, group: str, extras: Extras, shared: State) -> jax.Array | None:
        del group, extras, shared
        return None


def _own(state: State, group: str) -> State:
    """The state of a group."""
    if group not in state:
        raise ValueError(
            f"aggregate: the state is of other groups, and has none of {group!r}. It "
            "takes the same objectives at every step; of losses in an array, one for "
            "each example, as many (leave a smaller last batch out)."
        )
    return state[group]


def _weights_of(found: Any, num: int) -> tuple[jax.Array, State]:
    """What a rule returns; raises unless that is [K] weights and a state."""
    if not (isinstance(found, tuple) and len(found) == 2):
        raise TypeError(
            "aggregate: the rule must return a pair (weights, state), got "
            f"{type(found).__name__}."
        )
    weights, state = found
    array = as_array("aggregate", "the weights of the rule", weights)
    if array.shape != (num,):
        raise ValueError(
            f"aggregate: the rule must return weights [{num}], got {array.shape}."
        )
    return array, state


class _OfGramian(_PerGroup, Weighs):
    """Weights from the Gramian."""

    def __init__(self, rules: Mapping[str, Weighting], of_leaf: OfLeaf | None):
        self.rules, self.of_leaf = rules, of_leaf
        read = any(rule.reads_gramian for rule in rules.values())
        self.reads_gramians = read or of_leaf is not None

    def init(
        self, num: int, sizes: Mapping[str, Sequence[jax.ShapeDtypeStruct]]
    ) -> State:
        del num
        return {k: self.rules[k].init(x[0].shape[0]) for k, x in sizes.items()}

    def weigh(
        self, group: Group, extras: Extras, shared: State, state: State
    ) -> tuple[Weights, State]:
        del shared
        g, name = group.gramians, group.name
        rule = self.rules[name]
        more = extras.of_group(rule, *group)
        of_rows = "rows" in more
        given = g.total if of_rows else g.common(g.total)
        found = rule.weights(given, _own(state, name), **more)
        weights, after = _weights_of(found, len(g.rows))
        weights = weights if of_rows else weights * g.rows
        each = None
        if self.of_leaf is not None:
            each = [self.of_leaf(leaf, weights, g.rows) for leaf in g.leaves]
        after = kept(_finite(g, more), after, state[name])
        return Weights(weights, each), {**state, name: after}

    def everywhere(self, shared: State) -> jax.Array | None:
        del shared
        return None


class _OfLeaves(_PerGroup):
    """Another formula, of the stacked gradients themselves."""

    reads_gramians = True  # whether they are finite

    def __init__(self, rules: Mapping[str, Aggregator]):
        self.rules = rules

    def init(
        self, num: int, sizes: Mapping[str, Sequence[jax.ShapeDtypeStruct]]
    ) -> State:
        del num
        return {k: self.rules[k].init(x) for k, x in sizes.items()}

    def apply(
        self, group: Group, extras: Extras, shared: State, state: State
    ) -> tuple[Applied, State]:
        del shared
        name, rule = group.name, self.rules[group.name]
        more = extras.of_group(rule, *group)
        leaves = list(group.leaves.values())
        combined, after = rule.combine(leaves, _own(state, name), **more)
        after = kept(_finite(group.gramians, more), after, state[name])
        return Applied(combined, None), {**state, name: after}


class _OfLosses(Weighs):
    """Weights of all objectives at once, from their losses; also of single ones."""

    reads_gramians = False

    def __init__(self, rule: LossWeighting):
        self.rule = rule

    def init(
        self, num: int, sizes: Mapping[str, Sequence[jax.ShapeDtypeStruct]]
    ) -> State:
        del sizes
        return self.rule.init(num)

    def begin(self, extras: Extras, state: State) -> tuple[State, State]:
        losses, more = extras.of_losses(self.rule)
        weights, after = _weights_of(
            self.rule.weights(losses, state, **more), len(losses)
        )
        return weights, kept(jnp.isfinite(losses).all(), after, state)

    def weigh(
        self, group: Group, extras: Extras, shared: State, state: State
    ) -> tuple[Weights, State]:
        g = group.gramians
        weights = shared[extras.rows(group.name)].astype(g.total.dtype) * g.rows
        return Weights(weights), state

    def alone(self, group: str, extras: Extras, shared: State) -> jax.Array | None:
        weight: jax.Array = shared[extras.rows(group)]
        return weight

    def everywhere(self, shared: State) -> jax.Array | None:
        weights: jax.Array = shared
        return weights


def _finite(g: Gramians, more: Mapping[str, Any]) -> jax.Array:
    """Whether what a rule was given is finite."""
    finite = jnp.isfinite(g.total).all()
    if more.get("losses") is not None:
        finite &= jnp.isfinite(more["losses"]).all()
    return finite
