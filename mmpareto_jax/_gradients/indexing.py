"""Where the outputs of indexing can be non-zero: slices, gathers and scatters.

Indices that are constants of the program (``losses.at[k].set``, for a Python number
k) say where. For others an axis that is indexed counts everywhere; the axes that are
taken whole keep their sets in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmpareto_jax._gradients import boxes, runs
from mmpareto_jax._gradients.boxes import Axis, Box, Support
from mmpareto_jax._gradients.regroup import reshaped

_Window = tuple[Any, Any]  # start (None: unknown) and length on an axis


def _windows(known: Sequence[Any], sizes: Any, full: Any) -> list[_Window]:
    """The window of a dynamic slice, its starts clamped as jax does."""
    starts: list[int | None] = []
    for value, size, n in zip(known, sizes, full, strict=True):
        if size == n:
            starts.append(0)
        elif (found := value()) is None or not isinstance(n, int):
            starts.append(None)
        else:
            starts.append(min(max(int(found), 0), n - size))
    return list(zip(starts, sizes, strict=True))


def _read(where: Support, windows: Sequence[_Window], full: Sequence[Any]) -> Support:
    """What a window shows of an array of shape `full`."""

    def one(box: Box) -> Box:
        return tuple(
            own if start == 0 and size == n else _seen(own, start, size)
            for own, (start, size), n in zip(box, windows, full, strict=True)
        )

    return boxes.mapped(where, one)


def _seen(own: Axis, start: Any, size: Any) -> Axis:
    _, where = boxes.flat(own)
    if where is None or start is None:
        return boxes.axis(size)
    return boxes.axis(size, runs.cut(where, start, start + size))


def _written(
    operand: Support, update: Support, windows: Sequence[_Window], full: Sequence[Any]
) -> Support:
    """`operand` with the window replaced by `update`."""
    if any(start is None for start, _ in windows):
        kept = operand
    elif operand is None or operand:
        kept = boxes.support(
            (*box[:i], lost, *box[i + 1 :])
            for box in boxes.boxes(operand, full)
            for i, (window, n) in enumerate(zip(windows, full, strict=True))
            if (lost := _outside(box[i], window, n)) is not None
        )
    else:
        kept = operand

    def one(box: Box) -> Box:
        return tuple(
            own if start == 0 and size == n else _put(own, start, n)
            for own, (start, size), n in zip(box, windows, full, strict=True)
        )

    put = boxes.support(map(one, boxes.boxes(update, [size for _, size in windows])))
    return boxes.union([kept, put])


def _outside(own: Axis, window: _Window, n: Any) -> Axis | None:
    """An axis without the window; None if nothing is left of it."""
    start, size = window
    if start == 0 and size == n:
        return None
    _, where = boxes.flat(own)
    left = runs.without(
        ((0, n),) if where is None else where, ((start, start + size),), n
    )
    return boxes.axis(n, left) if left else None


def _put(own: Axis, start: Any, n: Any) -> Axis:
    size, where = boxes.flat(own)
    if start is None:
        return boxes.axis(n)
    return boxes.axis(n, runs.shift(((0, size),) if where is None else where, start))


def _dynamic_slice(eqn: Any, terms: Sequence[Support], known: Sequence[Any]) -> Support:
    if not terms[0]:
        return terms[0]
    full = boxes.shape_of(eqn.invars[0])
    windows = _windows(known[1:], eqn.params["slice_sizes"], full)
    return _read(terms[0], windows, full)


def _dynamic_update_slice(
    eqn: Any, terms: Sequence[Support], known: Sequence[Any]
) -> Support:
    full = boxes.shape_of(eqn.invars[0])
    windows = _windows(known[2:], boxes.shape_of(eqn.invars[1]), full)
    return _written(terms[0], terms[1], windows, full)


def _points(indices: Any, dims: Sequence[int], full: Any, window: Any) -> Any:
    """Known indices as [points, dims], or None: unknown, or out of bounds."""
    if indices is None:
        return None
    found = np.asarray(indices, np.int64).reshape(-1, len(dims))
    for i, d in enumerate(dims):
        if not isinstance(full[d], int) or not isinstance(window[d], int):
            return None
        if np.any(found[:, i] < 0) or np.any(found[:, i] > full[d] - window[d]):
            return None
    return found


def _gather(eqn: Any, terms: Sequence[Support], known: Sequence[Any]) -> Support:
    if not terms[0]:
        return terms[0]
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    full, out = boxes.shape_of(eqn.invars[0]), boxes.shape_of(eqn.outvars[0])
    dims = numbers.start_index_map
    collapsed = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    batch = [d for d in range(len(out)) if d not in numbers.offset_dims]
    points = _points(known[1](), dims, full, sizes)
    one_point = points is not None and len(points) == 1
    taken = None if points is None or one_point or len(dims) > 1 else points[:, 0]
    if taken is not None and (sizes[dims[0]] != 1 or dims[0] not in collapsed):
        taken = None
    starts = dict(zip(dims, points[0].tolist(), strict=True)) if one_point else {}
    moving = {*dims, *numbers.operand_batching_dims}
    windows = [
        (starts.get(d) if d in moving else 0, size) for d, size in enumerate(sizes)
    ]

    def one(box: Box) -> list[Box]:
        seen = boxes.boxes(_read(boxes.support([box]), windows, full), sizes)
        many: Axis | None = None
        if taken is not None:
            _, where = boxes.flat(box[dims[0]])
            mask = runs.at(((0, full[dims[0]]),) if where is None else where, taken)
            many = boxes.axis(len(taken), runs.of_mask(mask))
        found = []
        for x in seen:
            offset = [x[d] for d in range(len(full)) if d not in collapsed]
            if many is None:
                rows = [tuple(boxes.axis(out[d]) for d in batch)]
            else:
                lengths = [out[d] for d in batch]
                rows = list(
                    boxes.boxes(reshaped(boxes.support([(many,)]), lengths), lengths)
                )
            for row in rows:
                new = dict(zip(batch, row, strict=True))
                new |= dict(zip(numbers.offset_dims, offset, strict=True))
                found.append(tuple(new[d] for d in range(len(out))))
        return found

    return boxes.support(new for box in terms[0] for new in one(box))


def _scatter(replaces: bool) -> Callable[..., Support]:
    def rule(eqn: Any, terms: Sequence[Support], known: Sequence[Any]) -> Support:
        operand, _, update = terms
        if operand is None and not replaces:
            return None
        numbers = eqn.params["dimension_numbers"]
        full, shape = boxes.shape_of(eqn.invars[0]), boxes.shape_of(eqn.invars[2])
        dims = numbers.scatter_dims_to_operand_dims
        inserted = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
        kept = [d for d in range(len(full)) if d not in inserted]
        sizes = [1] * len(full)
        for d, w in zip(kept, numbers.update_window_dims, strict=True):
            sizes[d] = shape[w]
        points = _points(known[1](), dims, full, sizes)
        one_point = points is not None and len(points) == 1
        starts = dict(zip(dims, points[0].tolist(), strict=True)) if one_point else {}
        batching = set(numbers.operand_batching_dims)
        windows = [
            (None if d in batching else starts.get(d) if d in dims else 0, size)
            for d, size in enumerate(sizes)
        ]
        scattered = [
            d for d in range(len(shape)) if d not in numbers.update_window_dims
        ]
        taken = points is not None and len(points) > 1 and len(dims) == 1
        if not (taken and len(scattered) == 1 and dims[0] in inserted):
            taken = False

        def one(box: Box) -> Box:
            new = [boxes.axis(1) for _ in full]
            for d, w in zip(kept, numbers.update_window_dims, strict=True):
                new[d] = box[w]
            return tuple(new)

        update_boxes = boxes.boxes(update, shape)
        if taken:
            # One axis, many places: every place is a set of its own.
            places, d = points[:, 0], dims[0]
            put: list[Box] = []
            for box in update_boxes:
                _, where = boxes.flat(box[scattered[0]])
                chosen = (
                    places
                    if where is None
                    else places[runs.at(where, np.arange(len(places)))]
                )
                on = boxes.axis(
                    full[d], runs.runs((int(i), int(i) + 1) for i in chosen)
                )
                if len(chosen):
                    new = _read_in(one(box), windows, full, d)
                    put.append((*new[:d], on, *new[d + 1 :]))
            return boxes.union([operand, boxes.support(put)])
        moved = boxes.support(map(one, update_boxes)) if update is not None else None
        if replaces and one_point:
            return _written(operand, moved, windows, full)
        return boxes.union([operand, _written(boxes.NOWHERE, moved, windows, full)])

    return rule


def _read_in(box: Box, windows: Sequence[_Window], full: Any, skip: int) -> Box:
    """A box of an update in its places, on all axes but one."""
    return tuple(
        own if d == skip or (start == 0 and size == n) else _put(own, start, n)
        for d, (own, (start, size), n) in enumerate(
            zip(box, windows, full, strict=True)
        )
    )


INDEXING: dict[str, Callable[..., Support]] = {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter": _scatter(replaces=True),
    "scatter-add": _scatter(replaces=False),
}
