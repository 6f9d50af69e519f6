"""Whether arrays are as ``mmpareto datasets NAME`` says."""

import re

from mmpareto_jax.training._described.datasets import DATASETS


def check_described(name, arrays):
    """Names, dtypes, numbers of dimensions, and the sizes that are numbers."""
    assert set(arrays) == set(DATASETS[name].arrays)
    for array, text in DATASETS[name].arrays.items():
        dtype, _, shape = re.match(r"(\w+)( \[(.*?)\])?: ", text).groups()
        found = arrays[array]
        sizes = shape.split(", ") if shape else []
        assert found.dtype == dtype
        assert found.ndim == 1 + len(sizes)
        for size, expected in zip(found.shape[1:], sizes, strict=True):
            assert not expected.isdigit() or size == int(expected)
