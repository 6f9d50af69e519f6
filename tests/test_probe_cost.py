"""What a probe costs: the memory of one gradient and of the largest leaf's rows."""

import jax
import pytest
from combined import heads
from test_combined_cost import as_shapes, compiled, plain, temporaries

import mmpareto_jax as mmp

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("num", "leaves"), [(8, 2), (32, 3.1)])
@pytest.mark.parametrize("with_update", [False, True])
def test_the_memory_is_that_of_the_largest_leaf(num, leaves, with_update):
    """`leaves` times K of it, as for ``combined_grads`` with ``keep="gramian"``."""
    width, depth = 256, 10
    losses_fn, params, args = heads(num, depth, width, batch=32)
    params, args = as_shapes((params, args))
    look = mmp.probe(losses_fn, layers=True)
    update = params if with_update else None
    run = compiled(lambda p, u, *a: look(p, *a, update=u), params, update, *args)
    found = temporaries(run)
    base = temporaries(compiled(plain(losses_fn), params, *args))
    rows = (num + with_update) * 4 * width**2
    unit = sum(4 * x.size for x in jax.tree.leaves(params))
    print(f"K = {num}: plain {base / unit:.2f}, probe {found / unit:.2f}")
    assert found <= 1.1 * (base + leaves * rows)
