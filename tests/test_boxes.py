"""Boxes of sets against bool arrays."""

import numpy as np
import pytest
from supports import dense

from mmpareto_jax._gradients import boxes, regroup, runs

# The same 24 elements: reshaped into each other they must lose nothing.
SHAPES = [
    (4, 6),
    (24,),
    (2, 12),
    (6, 4),
    (2, 2, 6),
    (8, 3),
    (3, 8),
    (1, 24, 1),
    (12, 2),
    (2, 3, 4),
]


def random_support(shape, rng):
    axes = [
        boxes.axis(n, None if rng.random() < 0.4 else runs.of_mask(rng.random(n) < 0.6))
        for n in shape
    ]
    return boxes.support([tuple(axes)])


@pytest.mark.parametrize("seed", range(20))
def test_union_intersection_and_reshape(seed):
    rng = np.random.default_rng(seed)
    for _ in range(10):
        shape = SHAPES[rng.integers(len(SHAPES))]
        a, b = random_support(shape, rng), random_support(shape, rng)
        union, both = boxes.union([a, b]), boxes.common(a, b)
        np.testing.assert_array_equal(
            dense(union, shape), dense(a, shape) | dense(b, shape)
        )
        np.testing.assert_array_equal(
            dense(both, shape), dense(a, shape) & dense(b, shape)
        )
        mask = dense(union, shape)
        for _ in range(3):
            shape = SHAPES[rng.integers(len(SHAPES))]
            union, mask = regroup.reshaped(union, shape), mask.reshape(shape)
            np.testing.assert_array_equal(dense(union, shape), mask)


def test_too_many_boxes_become_one_that_has_them_all():
    n = 2 * boxes.MOST + 2
    diagonal = [
        (boxes.axis(n, ((i, i + 1),)), boxes.axis(n, ((i, i + 1),)))
        for i in range(0, n, 2)
    ]
    exact = boxes.support(diagonal[1:])
    assert len(exact) == boxes.MOST
    assert dense(exact, (n, n)).sum() == boxes.MOST
    expected = np.zeros((n, n), bool)
    expected[::2, ::2] = True
    np.testing.assert_array_equal(dense(boxes.support(diagonal), (n, n)), expected)


@pytest.mark.parametrize("seed", range(5))
def test_runs(seed):
    rng = np.random.default_rng(seed)
    size = 23
    mask, other = rng.random((2, size)) < 0.5
    a, b = runs.of_mask(mask), runs.of_mask(other)

    def on(found, n=size):
        return runs.at(found, np.arange(n))

    np.testing.assert_array_equal(on(a), mask)
    np.testing.assert_array_equal(on(runs.runs([*a, *b])), mask | other)
    np.testing.assert_array_equal(on(runs.common(a, b)), mask & other)
    np.testing.assert_array_equal(on(runs.without(a, b, size)), mask & ~other)
    np.testing.assert_array_equal(on(runs.flip(a, size)), mask[::-1])
    for stride in (1, 2, 3):
        cut = mask[4:20:stride]
        np.testing.assert_array_equal(on(runs.cut(a, 4, 20, stride), len(cut)), cut)
        padded = np.zeros(size * stride, bool)
        padded[::stride] = mask
        np.testing.assert_array_equal(on(runs.spread(a, stride), len(padded)), padded)
