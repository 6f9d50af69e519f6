"""Labels that are looked at before they are trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmpareto_jax.data import Examples, Source, as_examples


@dataclasses.dataclass(frozen=True)
class _Labelled:
    """Examples whose labels are looked at when they are taken."""

    where: str
    examples: Examples
    num_classes: int

    def __len__(self) -> int:
        return len(self.examples)

    def take(
        self, rows: np.ndarray, *, seed: int = 0, epoch: int = 0
    ) -> dict[str, np.ndarray]:
        batch = self.examples.take(rows, seed=seed, epoch=epoch)
        check_labels(self.where, batch["label"], self.num_classes)
        return batch


def labelled(name: str, split: str, source: Source, num_classes: int) -> Source:
    """The source, of which arrays are known already."""
    if isinstance(source, Mapping):
        return source
    where = f"task {name}: data: {split}"
    return _Labelled(where, as_examples(source), num_classes)


def check_labels(where: str, label: np.ndarray, num_classes: int | None) -> None:
    """Refuses what is no class.

    Raises:
      ValueError: not integers [N], or some below 0 or beyond `num_classes`.
    """
    if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(
            f"{where}: label: expected integers [N], got {label.dtype} "
            f"{list(label.shape)}"
        )
    least, most = int(label.min()), int(label.max())
    if least < 0 or (num_classes is not None and most >= num_classes):
        raise ValueError(
            f"{where}: label: expected 0 to {(num_classes or most + 1) - 1}, got "
            f"{least} to {most}"
        )
