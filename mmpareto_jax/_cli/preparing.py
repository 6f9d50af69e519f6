"""``mmpareto prepare`` and ``check``: what they do, and what they print.

Heavy imports are inside the functions, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import hashlib
from typing import Any

from mmpareto_jax._cli import progress as _progress
from mmpareto_jax._cli.devices import check_workers

FAULTY = 1


def prepare(arguments: dict[str, Any]) -> int:
    name, raw, out = (arguments.pop(k) for k in ("name", "raw", "out"))
    workers = arguments.pop("workers")
    check_workers(workers)
    given = {k: v for k, v in arguments.items() if v is not None}
    from mmpareto_jax.data.sources import options_of, plan_of, prepare

    for option in given:
        if option not in options_of(name):
            raise ValueError(f"--{option}: {name} has no such option")
    plan = plan_of(name, raw, **given)
    _progress.announce(f"{len(plan.examples)} examples")
    with _progress.preparation(name) as progress:
        try:
            prepared = prepare(plan, out, workers=workers, progress=progress)
        except MemoryError:
            raise ValueError(
                f"prepare: out of memory with {workers} workers; the same command with "
                "fewer goes on"
            ) from None
    index = prepared.index
    for split, counts in index["counts"].items():
        each = ", ".join(f"{k} {n}" for k, n in list(counts.items())[:12])
        more = ", ..." if len(counts) > 12 else ""
        # Without classes there is one count for all.
        shown = f" ({each}{more})" if "label" in prepared.arrays[split] else ""
        print(f"{split}: {sum(counts.values())} examples{shown}")
    print(f"left out: {index['left_out']}; the reasons are in {out}/report.json")
    digest = hashlib.sha256("".join(index["sha256"].values()).encode()).hexdigest()
    print(f"checksum of all arrays: {digest[:16]}")
    print(f"To train: mmpareto train {name} --data {out}")
    return 0


def check(arguments: dict[str, Any]) -> int:
    from mmpareto_jax.data.sources import check_prepared, open_prepared

    directory = arguments["directory"]
    faults = check_prepared(directory)
    for fault in faults:
        print(f"{directory}: {fault}")
    if faults:
        return FAULTY
    for split, arrays in open_prepared(directory).arrays.items():
        shown = (f"{name} {x.dtype} {list(x.shape[1:])}" for name, x in arrays.items())
        print(
            f"{split}: {len(next(iter(arrays.values())))} examples: {', '.join(shown)}"
        )
    return 0
