"""Supports written out, for the tests that compare them with arrays."""

import numpy as np

from mmpareto_jax._gradients import boxes


def dense(where, shape):
    """A support as a bool array."""
    out = np.zeros(shape, bool)
    for box in boxes.boxes(where, shape):
        mask = np.ones((), bool)
        for one in box:
            size, found = boxes.flat(one)
            own = np.zeros(size, bool)
            for start, stop in ((0, size),) if found is None else found:
                own[start:stop] = True
            mask = np.multiply.outer(mask, own)
        out |= mask
    return out
