"""ModelNet40, rendered: the front and the rear view of an object.

Raw layout: ``<class>/<train|test>/<object>.obj.<view>.png``, twelve views of each
object in the order of their names; views 0 and 6 are the two modalities.
"""

from __future__ import annotations

import collections
import functools
from pathlib import Path

from mmpareto_jax.data.sources._media import read_image
from mmpareto_jax.data.sources._plan import Arrays, Example, Plan, Problem
from mmpareto_jax.data.sources._splits import held_out

_VIEWS = 12


def plan(raw: Path, *, size: int = 224, seed: int = 0) -> Plan:
    """Images "front" and "rear" [size, size, 3]; a tenth of training validates.

    Args:
      raw: the directory.
      size: height and width.
      seed: of the validation part.

    Raises:
      ValueError: the directory has no such files.
    """
    objects = collections.defaultdict(list)
    for path in sorted(raw.glob("*/*/*.obj.*.png")):
        split = path.parent.name
        if split in ("train", "test"):
            key = (path.parent.parent.name, split, path.name.split(".obj.")[0])
            objects[key].append(path)
    if {split for _, split, _ in objects} != {"train", "test"}:
        raise ValueError(
            f"modelnet40: raw: {raw} has no views <class>/<train|test>/*.obj.*.png"
        )
    classes = tuple(sorted({name for name, _, _ in objects}))
    part = held_out([n for _, s, n in objects if s == "train"], 0.1, seed)
    examples, problems = [], []
    for (label, split, name), views in objects.items():
        if len(views) != _VIEWS:
            reason = f"{len(views)} views, not {_VIEWS}"
            problems.append(Problem(name, str(views[0]), reason))
            continue
        held = split == "train" and name in part
        examples.append(
            Example(
                name,
                "validation" if held else split,
                classes.index(label),
                (str(views[0]), str(views[_VIEWS // 2])),
            )
        )
    decode = functools.partial(_decode, size=size)
    options = {"size": size, "seed": seed}
    return Plan("modelnet40", classes, examples, decode, options, problems, raw=raw)


def _decode(example: Example, *, size: int) -> Arrays:
    front, rear = (read_image(path, size) for path in example.files)
    return {"front": front, "rear": rear}
