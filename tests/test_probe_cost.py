"""What a probe costs: the memory of one gradient and of the largest leaf's rows."""

import jax
import pytest
from combined import heads, normal
from test_combined_cost import as_shapes, compiled, flops, plain, temporaries

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


@pytest.mark.parametrize("num", [3, 8])
def test_it_takes_less_than_a_step_of_a_rule(num):
    """FLOPs: one backward pass for each objective, and no second one."""
    losses_fn, params, args = heads(num, 6, 64, 64)
    params, args = as_shapes((params, args))
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, keep="gramian")
    state = jax.eval_shape(step.init, params, *args)
    rule = flops(compiled(step.value_and_grads, state, params, *args))
    ours = flops(compiled(mmp.probe(losses_fn), params, *args))
    base = flops(compiled(plain(losses_fn), params, *args))
    print(f"K = {num}: plain 1, rule {rule / base:.2f}, probe {ours / base:.2f}")
    assert ours < rule
    assert ours < 1.1 * (2 * num + 1) / 3 * base


def test_a_deep_network_has_a_short_program():
    """500 leaves, StableHLO lines relative to the plain gradient's."""
    params = {
        "trunk": [{"w": normal(0, 8, 8), "b": normal(1, 8)} for _ in range(250)],
        "heads": [normal(2, 8), normal(3, 8)],
    }
    x = normal(4, 4, 8)

    def losses_fn(params, x):
        for layer in params["trunk"]:
            x = jax.numpy.tanh(x @ layer["w"] + layer["b"][None])
        return {str(k): (x @ w).mean() for k, w in enumerate(params["heads"])}

    def lines(fun, *args):
        return len(jax.jit(fun).lower(*args).as_text().splitlines())

    base = lines(plain(losses_fn), params, x)
    whole = lines(mmp.probe(losses_fn), params, x)
    layers = lines(mmp.probe(losses_fn, layers=True), params, x)
    print(f"lines: probe {whole / base:.2f}, with layers {layers / base:.2f}")
    assert whole <= 3 * base
    assert layers <= 6 * base
