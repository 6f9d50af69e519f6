"""What a probe returns: a tree of arrays, and printed, a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax

from mmpareto_jax._probe.reading import Reading
from mmpareto_jax._probe.table import table


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Probe:
    """What :func:`probe` returns: a tree of arrays, and printed, a table.

    Attributes:
      whole: of all parameters together; an objective has zeros where it does not
        reach. Its descents are those of the losses themselves.
      groups: group -> of its parameters, which the same objectives reach; groups of
        one objective too, but not the parameters that none reaches.
      layers: layer -> of its parameters; empty unless asked for.
    """

    whole: Reading
    groups: Mapping[str, Reading]
    layers: Mapping[str, Reading]

    def scalars(self) -> dict[str, jax.Array]:
        """``Reading.scalars`` of the whole, and of each group after ``GROUP/``.

        Returns:
          Name -> scalar; without the layers.
        """
        found = self.whole.scalars()
        for group, own in self.groups.items():
            found |= {f"{group}/{name}": x for name, x in own.scalars().items()}
        return found

    def __str__(self) -> str:
        told = all(not isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(self))
        if not told or self.whole.norms.ndim != 1:
            return repr(self)
        return table({"(all)": self.whole, **self.groups, **self.layers})
