"""Many probes in one sentence, which counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from mmpareto_jax._probe.result import Probe

_Record: TypeAlias = Mapping[str, Any]


def summarize(probes: Probe | Iterable[Probe | Mapping[str, Any]]) -> str:
    """Says in one sentence what probes of a training have seen.

    It counts probes, and advises nothing: those in which the plain sum, and what was
    applied, raises an objective (over all parameters, to first order); and those in
    which some pair of gradients conflicts on the parameters of a group. Rules against
    conflicts (PCGrad, UPGrad, DualProj, MMPareto's test) leave the sum's direction as
    it is where none does.

    Args:
      probes: what :func:`probe` returned; also with a leading axis, from ``lax.scan``.
        Or what ``Probe.scalars`` gave, as a file has kept it. Those in which a gradient
        is not finite are counted apart.

    Returns:
      The sentence.

    Raises:
      TypeError: something else than probes.
      ValueError: no probe.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> def losses_fn(x):
      ...     return {"low": jnp.sum(x**2), "high": jnp.sum((x - 4) ** 2)}
      >>> look = mmp.probe(losses_fn)
      >>> print(mmp.summarize([look(jnp.array([x])) for x in (-1.0, 1.0, 3.0, 5.0)]))
      In 4 probes the sum raises `low` in 25 % and `high` in 25 %; a pair of gradients
      conflicts in 50 % (`low+high` 50 %), and only there can a rule against conflicts
      turn the sum.
    """
    records = [_record(x) for x in _apart(probes)]
    finite = [r for r in records if _is_finite(r)]
    if not records:
        raise ValueError("summarize: expected at least one probe, got none.")
    lost = len(records) - len(finite)
    if not finite:
        return f"In none of {lost} probes all gradients are finite."
    counted = f"In {len(finite)} probe{'s' if len(finite) > 1 else ''}"
    if lost:
        have = "have" if lost > 1 else "has"
        counted += f" ({lost} more {have} gradients that are not finite)"
    by_sum = _listed(_raised(finite, "sum_descent/")) or "no objective"
    text = f"{counted} the sum raises {by_sum}"
    if any(name.startswith("update_descent/") for r in finite for name in r):
        applied = _listed(_raised(finite, "update_descent/")) or "none"
        text += f", what is applied raises {applied}"
    return f"{text}; {_conflicts(finite)}."


def _apart(probes: Probe | Iterable[Any]) -> Sequence[Any]:
    if not isinstance(probes, Probe):
        several = list(probes) if isinstance(probes, Iterable) else [probes]
        for x in several:
            if not isinstance(x, Probe | Mapping):
                raise TypeError(
                    "summarize: expected probes, or what Probe.scalars gave, got "
                    f"{type(x).__name__}."
                )
        return several
    if probes.whole.norms.ndim == 1:
        return [probes]
    host = jax.device_get(probes)
    num = len(host.whole.norms)
    return [jax.tree.map(lambda x, i=i: x[i], host) for i in range(num)]


def _record(given: Any) -> _Record:
    scalars = given.scalars() if isinstance(given, Probe) else given
    # Not as one tree, whose keys would come back sorted.
    return dict(zip(scalars, jax.device_get([*scalars.values()]), strict=True))


def _is_finite(record: _Record) -> bool:
    """A file has None for what was not."""
    values = [x for name, x in record.items() if name.startswith("sum_descent/")]
    return all(x is not None and math.isfinite(x) for x in values)


def _raised(records: Sequence[_Record], kind: str) -> dict[str, float]:
    """Objective -> the share of the probes in which it is raised, if in any."""
    names = dict.fromkeys(k for r in records for k in r if k.startswith(kind))
    shares = {k: np.mean([(r.get(k) or 0) < 0 for r in records]) for k in names}
    return {k.removeprefix(kind): float(x) for k, x in shares.items() if x}


def _conflicts(records: Sequence[_Record]) -> str:
    names = dict.fromkeys(k for r in records for k in r if k.endswith("/conflicts"))
    seen = {k: [(r.get(k) or 0) > 0 for r in records] for k in names}
    shares = {
        k.removesuffix("/conflicts"): float(np.mean(x))
        for k, x in seen.items()
        if any(x)
    }
    if not shares:
        return "no pair of gradients conflicts, so no rule against conflicts turns it"
    some = float(np.mean(np.any(list(seen.values()), axis=0)))
    each = ", ".join(f"`{name}` {_percent(x)}" for name, x in shares.items())
    return (
        f"a pair of gradients conflicts in {_percent(some)} ({each}), and only there "
        "can a rule against conflicts turn the sum"
    )


def _listed(shares: Mapping[str, float]) -> str:
    each = [f"`{name}` in {_percent(x)}" for name, x in shares.items()]
    return " and ".join(filter(None, [", ".join(each[:-1]), *each[-1:]]))


def _percent(share: float) -> str:
    digits = ".0f" if share == 0 or share >= 0.01 else ".1g"
    return f"{100 * share:{digits}} %"
