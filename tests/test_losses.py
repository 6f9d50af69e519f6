import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp
from mmpareto_jax._gradients.losses import by_name, named_scalars

NAMES = ("z", "a", "1")


@pytest.mark.parametrize(
    "call",
    [
        lambda fun, w: mmp.value_and_objective_grads(fun)(w),
        mmp.objective_groups,
        lambda fun, w: mmp.scalarize(mmp.weightings.stch(), fun)(w, ()),
    ],
)
def test_two_losses_of_one_name(call):
    """1 and "1": the second would take the place of the first."""

    def losses_fn(w):
        return {1: w.sum(), "1": 2 * w.sum()}

    with pytest.raises(ValueError, match=r"names of the losses .*got \[1, '1'\]"):
        call(losses_fn, jnp.ones(2))


def test_keys_become_text():
    names, values = named_scalars({2: jnp.ones(()), "a": 3.0})
    assert names == ("2", "a")
    assert [float(x) for x in values] == [1.0, 3.0]


@pytest.mark.parametrize(
    "values",
    [
        {"a": 2.0, 1: 3, "z": 1.0},
        {"1": np.float64(3), "z": jnp.ones((), jnp.bfloat16), "a": jnp.full((), 2.0)},
        np.array([1, 2, 3]),
        [1.0, 2.0, 3.0],
        jnp.array([1, 2, 3], jnp.bfloat16),
    ],
)
def test_by_name_is_in_the_order_of_the_losses(values):
    found = by_name("f", "x", values, NAMES)
    assert found.dtype == jnp.float32
    assert not found.weak_type
    np.testing.assert_array_equal(found, [1, 2, 3])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"a": 1.0, "z": 1.0}, r"^f: x has no '1': expected .*\('z', 'a', '1'\), got"),
        ({"a": 1.0, "z": 1.0, "1": 1.0, "q": 1.0}, "f: x has an unknown 'q'"),
        ({"a": 1.0, "z": 1.0, "1": 1.0, 1: 1.0}, "f: the names of the x must differ"),
        ({"a": jnp.ones(2), "z": 1.0, "1": 1.0}, r"'a' of x must be a scalar.*\(2,\)"),
        (jnp.ones(2), r"f: x must be a scalar for each of .*, got shape \(2,\)"),
        (jnp.ones((3, 1)), r"got shape \(3, 1\)"),
        (1.0, r"got shape \(\)"),
    ],
)
def test_by_name_refuses(values, match):
    with pytest.raises(ValueError, match=match):
        by_name("f", "x", values, NAMES)
