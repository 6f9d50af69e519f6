"""Which objectives act on which parameters: a value that the whole library shares."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax

PyTree: TypeAlias = Any
Objectives: TypeAlias = "int | Sequence[str] | ObjectiveGroups"

# Flax NNX wraps each leaf of a State in a Variable, whose array has this key; the same
# state as plain arrays has not. A parameter is called alike in both.
_VARIABLE_VALUE = jax.tree_util.GetAttrKey("value")


@dataclasses.dataclass(frozen=True)
class ObjectiveGroups:
    r"""Groups of parameters, each with the objectives that act on it.

    Usually found by :func:`mmpareto_jax.objective_groups`; by hand it is made with
    :meth:`from_prefixes` or :meth:`from_labels`. Printed, it is a table.

    Attributes:
      objectives: the names of all objectives, in the order of the losses.
      groups: name of the group -> names of its objectives, in the order of the rows
        of the group's stacked gradients.
      members: path of a parameter, or a prefix of paths -> name of its group. Paths
        are written as ``encoder/layers/0/kernel``; the longest prefix decides.

    Raises:
      TypeError: objectives that are no sequence of names, or no mapping of them.
      ValueError: an objective or a group that is not named, or one named twice.

    Example:
      >>> import mmpareto_jax as mmp
      >>> groups = mmp.ObjectiveGroups.from_prefixes({
      ...     "audio_encoder": ("joint", "audio"),
      ...     "visual_encoder": ("joint", "visual"),
      ...     "head": ("joint",),
      ... })
      >>> groups.group_of("audio_encoder/conv/kernel")
      'audio_encoder'
      >>> print(groups)
      group           objectives     parameters
      audio_encoder   joint, audio   audio_encoder
      visual_encoder  joint, visual  visual_encoder
      head            joint          head
    """

    objectives: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    members: Mapping[str, str]

    def __post_init__(self) -> None:
        _check_names("objectives", self.objectives)
        _check_mapping("groups", self.groups)
        _check_mapping("members", self.members)
        for name, objectives in self.groups.items():
            _check_names(f"the objectives of group {name!r}", objectives)
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError(
                f"ObjectiveGroups: objectives must differ, got {self.objectives}."
            )
        for name, objectives in self.groups.items():
            unknown = [o for o in objectives if o not in self.objectives]
            if unknown:
                raise ValueError(
                    f"ObjectiveGroups: unknown objective {unknown[0]!r} in group "
                    f"{name!r}; the objectives are {self.objectives}."
                )
            if len(set(objectives)) < len(objectives):
                raise ValueError(
                    f"ObjectiveGroups: group {name!r} names an objective twice: "
                    f"{tuple(objectives)}."
                )
        for path, name in self.members.items():
            if name not in self.groups:
                raise ValueError(
                    f"ObjectiveGroups: unknown group {name!r} for {path!r}; "
                    f"the groups are {tuple(self.groups)}."
                )

    def __hash__(self) -> int:
        groups, members = self.groups.items(), self.members.items()
        return hash((self.objectives, frozenset(groups), frozenset(members)))

    @classmethod
    def from_prefixes(
        cls,
        prefixes: Mapping[str, Sequence[str]],
        objectives: Sequence[str] | None = None,
    ) -> ObjectiveGroups:
        """One group per path prefix.

        Args:
          prefixes: path prefix -> its objectives. ``""`` matches every parameter.
          objectives: all objectives, in order; by default as they appear.

        Returns:
          The groups, named by their prefixes.
        """
        _check_mapping("prefixes", prefixes)
        return cls._make({p: p for p in prefixes}, prefixes, objectives)

    @classmethod
    def from_labels(
        cls,
        labels: PyTree,
        groups: Mapping[str, Sequence[str]],
        objectives: Sequence[str] | None = None,
    ) -> ObjectiveGroups:
        """Groups from a tree of labels, as ``optax.partition`` takes it.

        Args:
          labels: a tree of group names with the structure of the parameters, or of a
            prefix of it.
          groups: name of the group -> its objectives.
          objectives: all objectives, in order; by default as they appear.

        Returns:
          The groups.
        """
        return cls._make(dict(named_leaves(labels)), groups, objectives)

    @classmethod
    def _make(
        cls,
        members: Mapping[str, str],
        groups: Mapping[str, Sequence[str]],
        objectives: Sequence[str] | None,
    ) -> ObjectiveGroups:
        _check_mapping("groups", groups)
        for name, names in groups.items():
            _check_names(f"the objectives of group {name!r}", names)
        if objectives is not None:
            _check_names("objectives", objectives)
        seen = dict.fromkeys(o for names in groups.values() for o in names)
        return cls(
            tuple(seen) if objectives is None else tuple(objectives),
            {name: tuple(names) for name, names in groups.items()},
            dict(members),
        )

    def group_of(self, path: str) -> str:
        """The name of the group of the parameter at `path`.

        Raises:
          ValueError: no prefix of `path` belongs to a group.
        """
        parts = path.split("/")
        for cut in range(len(parts), -1, -1):
            name = self.members.get("/".join(parts[:cut]))
            if name is not None:
                return name
        raise ValueError(
            f"ObjectiveGroups: parameter {path!r} belongs to no group; known are "
            f"{_shorten(list(self.members))}."
        )

    def describe(self, group: str) -> tuple[str, str]:
        """What the table says of a group: its parameters and its objectives.

        Raises:
          ValueError: there is no such group.
        """
        if group not in self.groups:
            raise ValueError(
                f"ObjectiveGroups: unknown group {group!r}; the groups are "
                f"{tuple(self.groups)}."
            )
        own = [path for path, x in self.members.items() if x == group]
        others = [path for path, x in self.members.items() if x != group]
        return _shorten(_fold(own, others)), ", ".join(self.groups[group]) or "-"

    def __str__(self) -> str:
        rows = [(name, *self.describe(name)[::-1]) for name in self.groups]
        table = [("group", "objectives", "parameters"), *rows]
        widths = [max(len(row[i]) for row in table) for i in range(2)]
        lines = (f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in table)
        return "\n".join(line.rstrip() for line in lines)


def _check_names(what: str, names: Any) -> None:
    """Raises TypeError for anything but a sequence of names."""
    several = isinstance(names, Iterable) and not isinstance(names, str)
    if not (several and all(isinstance(name, str) for name in names)):
        raise TypeError(
            f"ObjectiveGroups: {what} must be a sequence of names, got {names!r:.60}."
        )


def _check_mapping(what: str, value: Any) -> None:
    """Raises TypeError for anything but a mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(
            f"ObjectiveGroups: {what} must be a mapping, got {type(value).__name__}."
        )


def as_groups(objectives: Objectives, caller: str) -> ObjectiveGroups:
    """An ``ObjectiveGroups`` from what the public functions accept.

    Args:
      objectives: the groups; or K, or K names: then all parameters are one group,
        ``"all"``, on which every objective acts.
      caller: the public function's name, for the message.

    Raises:
      TypeError: anything else, for example a traced K.
      ValueError: K < 1, or no names.
    """
    if isinstance(objectives, ObjectiveGroups):
        return objectives
    names: tuple[str, ...]
    if isinstance(objectives, int) and not isinstance(objectives, bool):
        names = tuple(str(k) for k in range(objectives))
    elif (
        isinstance(objectives, Sequence)
        and not isinstance(objectives, str)
        and all(isinstance(name, str) for name in objectives)
    ):
        names = tuple(objectives)
    else:
        raise TypeError(
            f"{caller}: `objectives` must be a number, a sequence of names or an "
            f"ObjectiveGroups, got {type(objectives).__name__}. Under "
            "optax.inject_hyperparams pass static_args=('objectives',)."
        )
    if not names:
        raise ValueError(f"{caller}: needs at least one objective, got {objectives!r}.")
    return ObjectiveGroups(names, {"all": names}, {"": "all"})


def path_name(path: Sequence[Any]) -> str:
    """``encoder/layers/0/kernel`` for the key path of a leaf."""
    if path and path[-1] == _VARIABLE_VALUE:
        path = path[:-1]
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of a tree with their path names, in the tree's order.

    No two names are alike: ``a/b`` may be the path of two leaves, of a key "a/b" and of
    a key "b" under "a". Then the keys follow: ``a/b/['a/b']``, ``a/b/['a']['b']``.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = [path_name(path) for path, _ in leaves]
    times = collections.Counter(names)
    taken = {name for name, number in times.items() if number == 1}
    for i, (path, _) in enumerate(leaves):
        if times[names[i]] > 1:
            names[i] += "/" + jax.tree_util.keystr(path)
            while names[i] in taken:
                names[i] += "'"
            taken.add(names[i])
    return [(name, leaf) for name, (_, leaf) in zip(names, leaves, strict=True)]


def _fold(paths: Sequence[str], others: Sequence[str]) -> list[str]:
    """The shortest prefixes of the paths that are of none of the others, each once."""
    taken = {x for path in others for x in _prefixes(path)}
    folded = (
        next((x for x in _prefixes(path) if x not in taken), path) for path in paths
    )
    return list(dict.fromkeys(x or "(all)" for x in folded))


def _prefixes(path: str) -> Iterator[str]:
    """``a``, ``a/b``, ``a/b/c``."""
    parts = path.split("/")
    return ("/".join(parts[:n]) for n in range(1, len(parts) + 1))


def _shorten(names: Sequence[str], most: int = 4) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
