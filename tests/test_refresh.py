"""Weights that are found now and then, and kept between."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from combined import audio_visual, heads, rule
from jax.sharding import PartitionSpec as P

import mmpareto_jax as mmp

KEEP = ["rows", "gramian"]
RULES = {
    "mmpareto": mmp.mmpareto,
    "official": functools.partial(mmp.mmpareto, variant="official"),
    "mgda": rule("mgda"),
    "config": rule("config"),
    "gradvac": rule("gradvac"),
    "silent": functools.partial(mmp.mmpareto, diagnostics=False),
}


def close(found, expected, digits):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        largest = np.max(np.abs(np.asarray(b, np.float64)), initial=0)
        np.testing.assert_allclose(
            np.asarray(a, np.float64), b, rtol=digits, atol=digits * largest
        )


def norm(tree):
    return float(optax.tree.norm(tree))


def at_steps(step, states, params, batches, programs=(1,)):
    """The gradients of every step, all at the same parameters, and the states."""
    run, found = jax.jit(step.value_and_grads), []
    for x in batches:
        (_, grads), state = run(states[-1], params, *x)
        found.append(grads)
        states.append(state)
    assert run._cache_size() in programs
    return found, states


@pytest.mark.parametrize("keep", KEEP)
@pytest.mark.parametrize("name", RULES)
def test_weights_between_refreshes(name, keep, x64):
    """Those of the last refresh, by linearity: the rows that they are of are found
    from the same rule with the losses as they were.
    """
    losses_fn, params, args = audio_visual()
    params, args = jax.tree.map(jnp.float64, (params, args))
    batches = [jax.tree.map(lambda x, k=k: x + 0.1 * k, args) for k in range(5)]
    step = mmp.combined_grads(losses_fn, RULES[name], every=3, length="free", keep=keep)
    found, states = at_steps(step, [step.init(params, *args)], params, batches)
    groups = mmp.objective_groups(losses_fn, params, *args)
    tx, rows = RULES[name](groups), mmp.value_and_objective_grads(losses_fn, groups)

    fresh = tx.init(params)
    for k, x in enumerate(batches):
        losses, stacked = rows(params, *x)
        if k % 3 == 0:
            expected, fresh = tx.update(stacked, fresh, params, losses=losses)
            before = stacked
            close(found[k], expected, 1e-9)
        else:
            expected = jax.tree.map(
                _same_weights,
                found[k - k % 3],
                before,
                stacked,
            )
            close(found[k], expected, 1e-7)
        assert int(states[k + 1].age) == k % 3 + 1
        close(states[k + 1].rule.diagnostics, fresh.diagnostics, 1e-9)
    assert int(states[-1].steps) == 5
    assert int(states[-1].missed) == 0


def _same_weights(combined, old, new):
    """The combination of new rows by the weights that made `combined` of the old."""
    if len(old) == 0:
        return jnp.zeros_like(combined)
    rows = np.asarray(old).reshape(len(old), -1)
    weights = np.linalg.lstsq(rows.T, np.asarray(combined).ravel())[0]
    return jnp.tensordot(jnp.asarray(weights), new, 1)


@pytest.mark.parametrize("keep", KEEP)
@pytest.mark.parametrize("num", [2, 8, 40])
def test_a_refresh_at_every_step_is_the_chain(num, keep):
    losses_fn, params, args = heads(num)
    params, args = jax.tree.map(jnp.float32, (params, args))
    always = mmp.combined_grads(losses_fn, mmp.mmpareto, every=lambda _: 1, keep=keep)
    chain = mmp.combined_grads(losses_fn, mmp.mmpareto, keep=keep)
    assert type(chain.init(params, *args)) is mmp.AggregateState
    state, own = chain.init(params, *args), always.init(params, *args)
    for k in range(3):
        x = (args[0] + k,)
        expected, state = jax.jit(chain.value_and_grads)(state, params, *x)
        found, own = jax.jit(always.value_and_grads)(own, params, *x)
        close(found, expected, 1e-5)
        close(own.rule, state, 1e-5)


def test_every_1_is_the_chain_exactly():
    losses_fn, params, args = audio_visual()
    one = mmp.combined_grads(losses_fn, mmp.mmpareto, every=np.int64(1))
    groups = mmp.objective_groups(losses_fn, params, *args)
    tx = mmp.mmpareto(groups)
    (_, found), _ = one.value_and_grads(one.init(params, *args), params, *args)
    _, stacked = mmp.value_and_objective_grads(losses_fn, groups)(params, *args)
    expected, _ = tx.update(stacked, tx.init(params), params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("keep", KEEP)
def test_the_guard(keep):
    """A group's gradient is never longer than at the last refresh; and not touched
    where it is shorter. Heads of one objective pass.
    """
    losses_fn, params, args = heads(3)

    def scaled(params, x, factor):
        return {k: factor * v for k, v in losses_fn(params, x).items()}

    factors = [1.0, 0.5, 1e4, 1e30, 1.0]
    batches = [(args[0], jnp.float32(f)) for f in factors]
    found = {}
    for length in ("guarded", "free"):
        step = mmp.combined_grads(
            scaled, rule("mgda"), every=4, length=length, keep=keep
        )
        state = step.init(params, args[0], jnp.float32(1))
        found[length], states = at_steps(step, [state], params, batches)
        assert bool(states[-1].lengths) == (length == "guarded")
    first = found["free"][0]
    for k, factor in enumerate(factors[:4]):
        free, guarded = found["free"][k], found["guarded"][k]
        close(free, jax.tree.map(lambda x, f=factor: f * x, first), 1e-4)
        close(guarded["heads"], free["heads"], 1e-6)
        shorter = first["trunk"] if factor > 1 else free["trunk"]
        close(guarded["trunk"], shorter, 1e-4)
    assert norm(found["guarded"][4]["trunk"]) == pytest.approx(norm(first["trunk"]))


@pytest.mark.parametrize("keep", KEEP)
def test_a_refresh_that_is_not_finite(keep):
    """It keeps the weights and counts; the next step tries again; the gradient shows
    it, as that of the chain does.
    """
    losses_fn, params, args = audio_visual()

    def scaled(params, audio, visual, factor):
        losses = losses_fn(params, audio, visual)
        return {**losses, "audio": factor * losses["audio"]}

    args, nan = (*args, jnp.float32(1)), (*args, jnp.float32(jnp.nan))
    step = mmp.combined_grads(scaled, mmp.mmpareto, every=3, keep=keep)
    batches = [args, args, args, nan, nan, args, args]
    found, states = at_steps(step, [step.init(params, *args)], params, batches)
    assert [int(s.age) for s in states] == [0, 1, 2, 3, 4, 5, 1, 2]
    assert [int(s.missed) for s in states] == [0, 0, 0, 0, 1, 2, 2, 2]
    assert np.isnan(found[3]["audio"][0]).all()
    assert np.isfinite(found[3]["visual"]).all()
    for state in states[1:]:
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.weights))
    close(found[6], found[0], 1e-5)
    # The first of all.
    found, states = at_steps(step, [step.init(params, *args)], params, [nan, args])
    assert [int(s.age) for s in states] == [0, 0, 1]
    chain = mmp.combined_grads(scaled, mmp.mmpareto)
    (_, expected), _ = chain.value_and_grads(chain.init(params, *args), params, *args)
    close(found[1], expected, 1e-5)


def test_rules_without_a_gramian_find_weights_at_every_step():
    """Only their diagnostics wait."""
    losses_fn, params, args = heads(3)
    for name in ("random", "geometric_mean"):
        step = mmp.combined_grads(losses_fn, rule(name), every=3)
        chain = mmp.combined_grads(losses_fn, rule(name))
        state, own = chain.init(params, *args), step.init(params, *args)
        assert own.weights is None
        norms = []
        for k in range(5):
            x = (args[0] * (1 + k),)
            expected, state = chain.value_and_grads(state, params, *x)
            found, own = step.value_and_grads(own, params, *x)
            close(found, expected, 1e-5)
            close(own.rule.weighting, state.weighting, 1e-6)
            seen, now = (mmp.diagnostics(x)["0+1+2"] for x in (own, state))
            close(seen["weights"], now["weights"], 1e-5)
            norms.append(seen["norms"])
        np.testing.assert_array_equal(norms[0], norms[2])
        assert np.all(norms[3] != norms[0])
        silent = mmp.combined_grads(losses_fn, rule(name, diagnostics=False), every=3)
        assert type(silent.init(params, *args)) is mmp.AggregateState


def test_a_schedule():
    losses_fn, params, args = heads(2)
    schedule = lambda step: jnp.where(step < 3, 1, 4)  # noqa: E731
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, every=schedule)
    _, states = at_steps(step, [step.init(params, *args)], params, [args] * 9)
    assert [int(s.age) for s in states] == [0, 1, 1, 1, 2, 3, 4, 1, 2, 3]


def test_gradients_of_unlike_scales():
    """The weights of the short ones are beyond what float32 holds."""

    def losses_fn(params, x):
        y = params["w"] * x
        return {"a": 1e-30 * jnp.sum(y**2), "b": 1e15 * jnp.sum(y[:2] ** 2)}

    params = {"w": jnp.array([1.0, -2.0, 3.0])}
    args = (jnp.array([1.0, 0.5, 2.0]),)
    step = mmp.combined_grads(losses_fn, rule("mgda"), every=2)
    found, _ = at_steps(step, [step.init(params, *args)], params, [args, args])
    assert 0 < np.max(np.abs(found[0]["w"])) < 1e-25
    close(found[1], found[0], 1e-5)


def test_the_state_donates_and_is_a_tree_of_arrays():
    losses_fn, params, args = heads(3)
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, every=2)
    state = step.init(params, *args)
    shapes = jax.eval_shape(step.init, params, *args)
    run = jax.jit(step.value_and_grads, donate_argnums=0)
    _, after = run(state, params, *args)
    for tree in (shapes, after):
        assert jax.tree.structure(tree) == jax.tree.structure(state)
    as_types = [(x.shape, x.dtype) for x in jax.tree.leaves(shapes)]
    assert as_types == [(x.shape, x.dtype) for x in jax.tree.leaves(after)]
    saved = jax.tree.map(np.asarray, after)
    (_, expected), _ = run(after, params, *args)
    (_, found), _ = run(jax.tree.map(jnp.asarray, saved), params, *args)
    close(found, expected, 0)


def test_in_a_scan_and_half_precision():
    losses_fn, params, args = heads(3)
    params, args = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (params, args))
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, every=3)

    def body(carry, _):
        params, state = carry
        (losses, grads), state = step.value_and_grads(state, params, *args)
        params = jax.tree.map(lambda p, g: p - p.dtype.type(0.05) * g, params, grads)
        return (params, state), sum(losses.values())

    first = params, step.init(params, *args)
    (_, state), losses = jax.jit(lambda x: jax.lax.scan(body, x, None, 12))(first)
    assert int(state.steps) == 12
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("keep", KEEP)
def test_in_shard_map(keep):
    """Parameters whole, examples on eight devices: the single device's gradients."""
    losses_fn, params, (x,) = heads(2, batch=16)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))

    def mean(params, x):
        losses = losses_fn(params, x)
        return {k: jax.lax.pmean(v, "data") for k, v in losses.items()}

    def run(loss, params, x):
        step = mmp.combined_grads(loss, mmp.mmpareto, every=2, keep=keep)
        state = step.init(params, x)
        found = []
        for k in range(3):
            (_, grads), state = step.value_and_grads(state, params, x * (1 + k))
            found.append(grads)
        return found

    mapped = jax.shard_map(
        functools.partial(run, mean),
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
    )
    close(jax.jit(mapped)(params, x), run(losses_fn, params, x), 1e-4)


def test_a_model_on_each_device():
    losses_fn, params, (x,) = heads(2, batch=16)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    combination = functools.partial(mmp.mmpareto, axis_name=())

    def run(params, x, combination=mmp.mmpareto):
        step = mmp.combined_grads(losses_fn, combination, every=2)
        state, found = step.init(params, x), []
        for k in range(3):
            (_, grads), state = step.value_and_grads(state, params, x * (1 + k))
            found.append(grads)
        return found

    def own(params, x):
        params = jax.lax.pcast(params, "data", to="varying")
        return jax.tree.map(lambda g: g[None], run(params, x, combination))

    mapped = jax.shard_map(
        own, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data")
    )
    found = jax.tree.map(lambda g: g[3], jax.jit(mapped)(params, x))
    close(found, run(params, x[6:8]), 1e-4)


def test_parameters_on_eight_devices():
    losses_fn, params, (x,) = heads(2, batch=16)
    mesh = jax.make_mesh((8,), ("model",), (jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, P("model"))
    sharded = {
        "trunk": [jax.device_put(w, place) for w in params["trunk"]],
        "heads": params["heads"],
    }
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, every=2)
    # The first state is on one device, as it is made, and the later ones on all.
    batches = [(x,), (2 * x,), (2 * x,)]
    found, _ = at_steps(step, [step.init(sharded, x)], sharded, batches, (2,))
    expected, _ = at_steps(step, [step.init(params, x)], params, batches, (3,))
    close(found, expected, 1e-5)


def test_a_model_for_each_seed():
    """Under vmap, with states of unlike age."""
    losses_fn, params, args = heads(2)
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, every=2)
    states = [step.init(params, *args)]
    found, states = at_steps(step, states, params, [args, (2 * args[0],)])
    both = jax.tree.map(lambda *x: jnp.stack(x), *states[:2])
    run = jax.vmap(step.value_and_grads, in_axes=(0, None, 0))
    (_, grads), _ = run(both, params, jnp.stack([args[0], 2 * args[0]]))
    for k in range(2):
        close(jax.tree.map(lambda g, k=k: g[k], grads), found[k], 1e-5)


def test_errors():
    losses_fn, params, args = heads(2)
    for every in (0, -3, 2.5, True, "10", None, 2**31):
        with pytest.raises(ValueError, match="`every` must be an integer >= 1"):
            mmp.combined_grads(losses_fn, mmp.mmpareto, every=every)
    with pytest.raises(ValueError, match="`every` must be known when"):
        jax.jit(lambda n: mmp.combined_grads(losses_fn, mmp.mmpareto, every=n))(3)
    for combination in (mmp.weightings.mgda(), mmp.weightings.dwa(), mmp.mmpareto(2)):
        with pytest.raises(TypeError, match="must be a function of groups"):
            mmp.combined_grads(losses_fn, combination)
    with pytest.raises(ValueError, match="`length` must be 'guarded' or 'free'"):
        mmp.combined_grads(losses_fn, mmp.mmpareto, every=3, length="short")

    def chained(groups):
        return optax.chain(mmp.mmpareto(groups), optax.sgd(0.1))

    step = mmp.combined_grads(losses_fn, chained, every=3)
    with pytest.raises(TypeError, match=r"with every .* an optimiser comes after"):
        step.init(params, *args)
    step = mmp.combined_grads(losses_fn, rule("graddrop"), every=3)
    with pytest.raises(ValueError, match="has no weights that every could go on with"):
        step.init(params, *args)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("keep", KEEP)
def test_the_guard_shortens_before_anything_overflows(keep, variant):
    """The old weight times the new gradient is beyond float16, the result is not."""
    rows = jnp.array([[1, 0, 0], [-1, 1, 0]], jnp.float16)

    def losses_fn(params, rows):
        return {
            k: jnp.sum(row * params["w"]) for k, row in zip("ab", rows, strict=True)
        }

    params = {"w": jnp.zeros(3, jnp.float16)}
    combination = functools.partial(mmp.mmpareto, variant=variant)
    step = mmp.combined_grads(losses_fn, combination, every=10, keep=keep)
    batches = [(rows * jnp.array([[1], [c]], rows.dtype),) for c in (1e-4, 1, 10)]
    found, _ = at_steps(step, [step.init(params, rows)], params, batches)
    for grads in found[1:]:
        assert np.isfinite(grads["w"]).all()
        assert norm(grads) == pytest.approx(norm(found[0]), rel=2e-3)


def test_a_nan_between_is_seen_in_all_of_the_group():
    losses_fn, params, (x,) = heads(2)

    def broken(params, x, factor):
        w = params["trunk"][0]
        extra = factor * w[0, 0]  # reaches one number alone
        return {k: v + extra for k, v in losses_fn(params, x).items()}

    step = mmp.combined_grads(broken, mmp.mmpareto, every=3)
    batches = [(x, jnp.float32(k)) for k in (0, jnp.nan, 0)]
    found, _ = at_steps(step, [step.init(params, *batches[0])], params, batches)
    assert all(np.isnan(g).all() for g in found[1]["trunk"])
    close(found[2], found[0], 1e-5)


def test_a_gradient_of_zero_freezes_nothing():
    """As a guard it would; the next step tries again."""
    losses_fn, params, args = heads(2)

    def scaled(params, x, factor):
        return {k: factor * v for k, v in losses_fn(params, x).items()}

    step = mmp.combined_grads(scaled, rule("upgrad"), every=3)
    batches = [(args[0], jnp.float32(k)) for k in (0, 1, 1, 1, 0, 1)]
    found, states = at_steps(step, [step.init(params, *batches[0])], params, batches)
    assert [int(s.age) for s in states] == [0, 0, 1, 2, 3, 4, 1]
    assert [int(s.missed) for s in states] == [0, 1, 1, 1, 1, 2, 2]
    for k in (2, 3, 5):
        close(found[k], found[1], 1e-5)


def test_a_loss_for_each_example_needs_as_many():
    step = mmp.combined_grads(lambda w, x: (w * x) ** 2, rule("mgda"))
    state = step.init(jnp.ones(()), jnp.arange(4.0))
    with pytest.raises(ValueError, match="is of other groups, and has none of"):
        step.value_and_grads(state, jnp.ones(()), jnp.arange(3.0))


def test_errors_of_a_step():
    losses_fn, params, args = heads(2)

    def run(every, state=None):
        step = mmp.combined_grads(losses_fn, mmp.mmpareto, every=every)
        state = step.init(params, *args) if state is None else state
        jax.jit(step.value_and_grads)(state, params, *args)

    with pytest.raises(ValueError, match="a traced step: a schedule is made of jax"):
        run(lambda step: 1 if step < 3 else 2)
    with pytest.raises(ValueError, match="must give one number, got int32"):
        run(lambda step: jnp.arange(3, dtype=jnp.int32) + step)
    plain = mmp.combined_grads(losses_fn, mmp.mmpareto).init(params, *args)
    kept = mmp.combined_grads(losses_fn, mmp.mmpareto, every=2).init(params, *args)
    with pytest.raises(TypeError, match=r"is a RefreshState, as init .*AggregateState"):
        run(3, plain)
    with pytest.raises(TypeError, match="this state is of another `every`"):
        run(1, kept)


def test_nothing_combines_what_is_combined():
    losses_fn, params, args = heads(2)
    step = mmp.combined_grads(losses_fn, mmp.mmpareto)
    (_, grads), _ = step.value_and_grads(step.init(params, *args), params, *args)
    tx = mmp.mmpareto(step.groups(params, *args))
    with pytest.raises(ValueError, match="Those of combined_grads are combined alr"):
        tx.update(grads, tx.init(params), params)


def compiled(fun, *args):
    return jax.jit(fun).lower(*args).compile()


def flops(executable):
    analysis = executable.cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]


@pytest.mark.parametrize(("keep", "limit"), [("rows", 1.10), ("gramian", 1.15)])
def test_a_cycle_of_ten_costs_a_plain_step(keep, limit):
    """Each branch by itself, with the age as a constant."""
    losses_fn, params, args = audio_visual(64, 256)
    plain = jax.grad(lambda params, *args: sum(losses_fn(params, *args).values()))
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, every=10, keep=keep)
    state = step.init(params, *args)

    def at_age(age, state, params, *args):
        state = state._replace(age=jnp.int32(age))
        return step.value_and_grads(state, params, *args)

    base = flops(compiled(plain, params, *args))
    fresh, stale = (
        flops(compiled(functools.partial(at_age, age), state, params, *args)) / base
        for age in (10, 1)
    )
    print(f"FLOPs: refresh {fresh:.3f}, between {stale:.3f} of plain")
    assert fresh > 1.2
    assert stale <= 1.05
    assert (fresh + 9 * stale) / 10 <= limit


@pytest.mark.parametrize("keep", KEEP)
def test_the_program_of_many_leaves(keep):
    """Both branches: 8.5 times the lines of the plain step, as for 500 leaves."""
    losses_fn, params, args = heads(8, 100)
    quiet = functools.partial(mmp.mmpareto, diagnostics=False)
    step = mmp.combined_grads(losses_fn, quiet, every=10, keep=keep)
    plain = jax.grad(lambda params, x: sum(losses_fn(params, x).values()))

    def lines(fun, *args):
        return len(jax.jit(fun).lower(*args).as_text().splitlines())

    ours = lines(step.value_and_grads, step.init(params, *args), params, *args)
    assert ours <= 8.8 * lines(plain, params, *args)


def test_the_page_runs(capsys):
    docs = pathlib.Path(__file__).parents[1] / "notebooks" / "docs"
    blocks = re.findall(r"```python\n(.*?)```", (docs / "refresh.md").read_text(), re.S)
    (block,) = blocks
    exec(compile(block, "refresh.md", "exec"), {})
    assert capsys.readouterr().out == "5 0\n"
