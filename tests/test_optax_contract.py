"""The Optax contract, held by every transformation of the library."""

import contextlib
import functools
import inspect

import chex
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx
from flax.training import train_state
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import mmpareto_jax as mmp

FACTORIES = {
    name: factory
    for name, factory in vars(mmp.weightings).items()
    if callable(factory) and name.islower() and not name.startswith("_")
}
# It is of two objectives; its way through the code is that of `config`.
del FACTORIES["dcgd"]
# Where the defaults do not fit, or leave a part of the state out.
ARGUMENTS = {
    "constant": {"weights": [1.0, 0.5, 2.0]},
    "mmpareto": {"gamma": lambda step: 1 + step / 4},
    "nash_mtl": {"update_every": 2},
    "smoothed": {"weighting": mmp.weightings.gradnorm()},
}
# One of each way through the code that all rules share, for what a rule has no say in:
# of a Gramian in one scale, with a state, with losses; of the losses themselves; of the
# gradients themselves, without and with a state, of random numbers and of losses.
KINDS = (
    *("paper", "official", "krum", "gradvac", "gradnorm"),
    *("uncertainty", "trimmed_mean", "graddrop", "db_mtl"),
)
# Kinds first: the parameters of `rule` are told apart by their places.
RULES = (*KINDS, *(name for name in FACTORIES if name not in KINDS))


def each(names):
    """Cases; daily, one of each kind."""
    marks = pytest.mark.slow
    return [x if x in KINDS else pytest.param(x, marks=marks) for x in names]


OBJECTIVES = ("x", "y", "z")
GROUPS = mmp.ObjectiveGroups.from_prefixes(
    {"trunk": OBJECTIVES, "head": ("x",), "idle": ()}, OBJECTIVES
)
PARAMS = {
    "trunk": {"kernel": jnp.ones((2, 4)), "bias": jnp.ones(4)},
    "head": jnp.ones(3),
    "idle": jnp.ones(2),
}


@pytest.fixture(scope="module", params=each(RULES))
def rule(request):
    """Of module scope, so that one worker runs all tests of a rule in a row."""
    yield request.param
    for cached in (compiled, scanned_on_one_device, traced):
        cached.cache_clear()
    jax.clear_caches()


of_each_kind = pytest.mark.parametrize("rule", KINDS, indirect=True)
# Where each costs seconds: of a Gramian, of losses, of gradients with random numbers.
of_each_way = pytest.mark.parametrize(
    "rule", ["official", "uncertainty", "graddrop"], indirect=True
)


def weighting(name):
    return FACTORIES[name](**ARGUMENTS.get(name, {}))


def transformation(name, objectives=GROUPS):
    if name in FACTORIES:
        return mmp.aggregate(weighting(name), objectives)
    return mmp.mmpareto(objectives, variant=name)


@functools.cache
def compiled(name):
    tx = transformation(name)
    return optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update))


def reads_losses(name):
    if name not in FACTORIES:
        return False
    found = weighting(name)
    return isinstance(found, mmp.LossWeighting) or "losses" in found.extras


def stacked(seed=0, params=PARAMS):
    rng = np.random.default_rng(seed)

    def rows(path, x):
        num = len(GROUPS.groups[path[0].key])
        return jnp.asarray(rng.normal(size=(num, *x.shape)), x.dtype)

    return jax.tree.map_with_path(rows, params)


def losses_at(seed=0):
    values = np.random.default_rng(seed).uniform(0.5, 2.0, size=3)
    return {k: jnp.float32(x) for k, x in zip(OBJECTIVES, values, strict=True)}


def update(tx, state, seed=0, *, grads=None, params=PARAMS, losses=None, **more):
    """One update with the arguments of `seed`, and two that no rule knows."""
    extra = {"losses": losses or losses_at(seed), "value": jnp.zeros(()), **more}
    grads = stacked(seed, params) if grads is None else grads
    return tx.update(grads, state, params, anything=None, **extra)


def close(found, expected, rtol=1e-5, atol=1e-5):
    chex.assert_trees_all_close(found, expected, rtol=rtol, atol=atol)


def equal(found, expected):
    chex.assert_trees_all_equal(found, expected)


def types(tree):
    """The structure, and of each leaf all that a second compilation could hang on."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(x.shape, x.dtype, x.weak_type) for x in leaves]


def astype(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


# --- Extra arguments, types


def test_unknown_extra_arguments_change_nothing(rule):
    tx = compiled(rule)
    state = tx.init(PARAMS)
    equal(update(tx, state, value=jnp.float32(jnp.nan)), update(tx, state))


def test_losses_matter_only_to_rules_that_read_them(rule):
    tx = compiled(rule)
    state = update(tx, tx.init(PARAMS))[1]
    bad = dict.fromkeys(OBJECTIVES, jnp.float32(jnp.nan))
    found, expected = update(tx, state, losses=bad), update(tx, state)
    if reads_losses(rule):
        with pytest.raises(AssertionError):
            equal(found, expected)
    else:
        equal(found, expected)


def test_later_updates_are_not_compiled_again(rule):
    tx = compiled(rule)
    state = update(tx, tx.init(PARAMS))[1]
    before = tx.update._cache_size()
    for seed in range(3):
        _, state = update(tx, state, seed)
    assert tx.update._cache_size() == before


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        ("bfloat16", False),
        ("float32", True),
        ("float64", True),
    ],
)
def test_types_are_kept(rule, dtype, wide):
    """Of every update and of the state: the second call sees what the first did."""
    types_are_kept(rule, dtype, wide)


@of_each_kind
@pytest.mark.parametrize(
    ("dtype", "wide"), [("float16", False), ("float32", False), ("bfloat16", True)]
)
def test_other_types_are_kept(rule, dtype, wide):
    types_are_kept(rule, dtype, wide)


def types_are_kept(rule, dtype, wide):
    tx = transformation(rule)
    with jax.enable_x64(wide):
        params = astype(PARAMS, dtype)
        state = jax.eval_shape(tx.init, params)
        updates, after = jax.eval_shape(
            functools.partial(update, tx), state, params=params
        )
        assert types(updates) == types(jax.eval_shape(lambda: params))
        assert types(after) == types(state)


@of_each_kind
def test_each_leaf_keeps_its_type(rule, x64):
    """Of a rule's own arrays, which are of one type, `test_types_are_kept` tells."""
    tx = transformation(rule)
    params = {
        "trunk": {
            dtype: jnp.ones(2, dtype)
            for dtype in ("bfloat16", "float16", "float32", "float64")
        },
        "head": jnp.ones(3, "float16"),
        "idle": jnp.ones(2, "bfloat16"),
    }
    state = tx.init(params)
    updates, after = jax.eval_shape(functools.partial(update, tx), state, params=params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


@of_each_kind
@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool"])
@pytest.mark.parametrize("leaf", ["trunk/bias", "head", "idle"])
def test_gradients_that_are_not_real_and_floating(rule, leaf, dtype):
    tx = transformation(rule)
    grads = jax.tree.map_with_path(
        lambda path, x: (
            x.astype(dtype)
            if jax.tree_util.keystr(path, simple=True, separator="/") == leaf
            else x
        ),
        stacked(),
    )
    with pytest.raises(
        TypeError, match=f"leaf '{leaf}' must be real and floating, got {dtype}"
    ):
        update(tx, tx.init(PARAMS), grads=grads)


# --- init and the state


def test_init_on_shapes(rule):
    tx = transformation(rule)
    shapes = jax.eval_shape(lambda: PARAMS)
    state = tx.init(PARAMS)
    equal(tx.init(shapes), state)
    assert types(tx.init(shapes)) == types(state)
    assert types(jax.eval_shape(tx.init, PARAMS)) == types(state)
    assert types(jax.eval_shape(tx.init, shapes)) == types(state)


def test_tree_get_and_set(rule):
    """By the names of the diagnostics, and no name of ours is Adam's."""
    tx, adam = compiled(rule), optax.adam(0.1)
    state = (update(tx, tx.init(PARAMS))[1], adam.init(PARAMS))
    state = jax.device_get(state)
    for name, value in mmp.diagnostics(state)["trunk"].items():
        equal(optax.tree.get(state, name), value)
        doubled = optax.tree.set(state, **{name: value * 2})
        equal(mmp.diagnostics(doubled)["trunk"][name], value * 2)
    assert optax.tree.get(state, "count") == 0
    for name in ("mu", "nu"):
        chex.assert_trees_all_equal_structs(optax.tree.get(state, name), PARAMS)


def test_states_through_a_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    states = jax.tree.map(
        lambda x: jnp.asarray(100 * rng.normal(size=x.shape)).astype(x.dtype),
        {name: transformation(name).init(PARAMS) for name in RULES},
    )
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        like = jax.eval_shape(lambda: states)
        found = checkpointer.restore(tmp_path / "states", like)
    equal(found, states)
    assert types(found) == types(states)


# --- Control flow


TAKEN = np.array([True, True, False, True])


def inputs():
    each = [(stacked(seed), losses_at(seed), x) for seed, x in enumerate(TAKEN)]
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y) for y in x]), *each)


def scanned(tx, params, steps):
    """A scan over steps, some of which a cond leaves out."""

    def step(carry, given):
        grads, losses, taken = given

        def take(carry):
            params, state = carry
            updates, state = update(
                tx, state, grads=grads, params=params, losses=losses
            )
            return optax.apply_updates(params, updates), state

        return lax.cond(taken, take, lambda carry: carry, carry), None

    return lax.scan(step, (params, tx.init(params)), steps)[0]


@functools.cache
def scanned_on_one_device(name):
    return jax.jit(functools.partial(scanned, transformation(name)))(PARAMS, inputs())


def test_scan_and_cond_equal_a_loop(rule):
    tx = compiled(rule)
    params, state = PARAMS, tx.init(PARAMS)
    for seed, taken in enumerate(TAKEN):
        if taken:
            updates, state = update(tx, state, seed, params=params)
            params = optax.apply_updates(params, updates)
    close(scanned_on_one_device(rule), (params, state))


# --- Not finite


def spoiled(seed, bad):
    grads = stacked(seed)
    kernel = grads["trunk"]["kernel"].at[:2, 0, 0].set(bad)
    return grads | {"trunk": grads["trunk"] | {"kernel": kernel}}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite(rule, bad):
    """It is seen in the updates; the rule's state does not remember it."""
    tx = compiled(rule)
    _, before = update(tx, tx.init(PARAMS))
    # Two rows: one infinity alone is what a trimmed mean is there to leave out.
    updates, after = update(tx, before, 1, grads=spoiled(1, bad))
    assert not np.isfinite(updates["trunk"]["kernel"][0, 0])
    assert not np.isfinite(mmp.diagnostics(after)["trunk"]["norms"][1])
    equal(updates["head"], update(tx, before, 1)[0]["head"])
    # A rule of losses alone saw nothing wrong.
    of_losses = not isinstance(before.weighting, dict)
    kept = update(tx, before, 1)[1] if of_losses else before
    equal(after.weighting, kept.weighting)
    equal(update(tx, after, 2), update(tx, kept, 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite(rule, bad):
    """The rule's state does not remember it."""
    tx = compiled(rule)
    _, before = update(tx, tx.init(PARAMS))
    losses = losses_at(1) | {"y": jnp.float32(bad)}
    _, after = update(tx, before, 1, losses=losses)
    kept = before if reads_losses(rule) else update(tx, before, 1)[1]
    equal(update(tx, after, 2), update(tx, kept, 2))


def test_a_step_of_which_nothing_is_finite(rule):
    tx = compiled(rule)
    _, before = update(tx, tx.init(PARAMS))
    losses = dict.fromkeys(OBJECTIVES, jnp.float32(jnp.nan))
    _, after = update(tx, before, 1, grads=spoiled(1, np.nan), losses=losses)
    equal(update(tx, after, 2), update(tx, before, 2))


# --- Hyperparameters


def floats(name):
    """The hyperparameters of a rule that are numbers but not counts."""
    known = inspect.signature(FACTORIES[name]).parameters.items()
    found = {k: x.default for k, x in known if isinstance(x.default, float)}
    return {k: x for k, x in found.items() if k not in ARGUMENTS.get(name, {})}


@functools.cache
def traced(name, **numbers):
    """The rule with these hyperparameters in its state."""
    known = inspect.signature(FACTORIES[name]).parameters
    fixed = [k for k in known if k not in numbers]

    @functools.wraps(FACTORIES[name])
    def factory(*args, **kwargs):
        return mmp.aggregate(FACTORIES[name](*args, **kwargs), GROUPS)

    inject = optax.inject_hyperparams(factory, static_args=fixed)
    tx = inject(**numbers, **ARGUMENTS.get(name, {}))
    return tx._replace(update=jax.jit(tx.update))


@pytest.mark.parametrize("name", each(x for x in FACTORIES if floats(x)))
def test_traced_hyperparameters_equal_constants(name):
    tx, constant = traced(name, **floats(name)), compiled(name)
    state, other = tx.init(PARAMS), constant.init(PARAMS)
    before = tx.update._cache_size()
    for seed in range(3):
        updates, state = update(tx, state, seed)
        expected, other = update(constant, other, seed)
        close(updates, expected)
    assert tx.update._cache_size() <= before + 1
    for key, value in floats(name).items():
        assert optax.tree.get(state.hyperparams, key) == np.float32(value)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cagrad", "c"),
        ("fairgrad", "alpha"),
        ("metabalance", "relax"),
        ("stch", "mu"),
    ],
)
def test_schedules_equal_constants(name, key):
    """Those of the test above, set between the steps."""
    tx = traced(name, **{key: lambda step: 0.3 + 0.5 * step})
    constant = traced(name, **floats(name))
    state, other = tx.init(PARAMS), constant.init(PARAMS)
    for seed in range(2):
        updates, state = update(tx, state, seed)
        other = optax.tree.set(other, **{key: jnp.float32(0.3 + 0.5 * seed)})
        expected, other = update(constant, other, seed)
        close(updates, expected)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_gamma_injected_scheduled_and_constant(variant):
    def gamma(step):
        return 0.5 + step

    inject = optax.inject_hyperparams(
        mmp.mmpareto, static_args=("objectives", "variant")
    )
    ways = [
        inject(GROUPS, gamma=gamma, variant=variant),
        mmp.mmpareto(GROUPS, gamma=gamma, variant=variant),
    ]
    for tx in ways:
        step = tx._replace(update=jax.jit(tx.update))
        state = tx.init(PARAMS)
        for seed in range(3):
            updates, state = update(step, state, seed)
            plain, _ = update(compiled(variant), compiled(variant).init(PARAMS), seed)
            scale = (0.5 + seed) / 1.5
            trunk = jax.tree.map(lambda x, c=scale: c * x, plain["trunk"])
            close(updates, plain | {"trunk": trunk})
        assert step.update._cache_size() == 1


# --- Wrappers


LABELS = {"trunk": "shared", "head": "own", "idle": "own"}
OPTIMIZERS = {"shared": optax.sgd(0.1, momentum=0.9), "own": optax.adam(0.1)}
AFTER = {
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
    "partition by a tree": optax.partition(OPTIMIZERS, LABELS),
    "partition by a function": optax.partition(OPTIMIZERS, lambda _: LABELS),
}


@of_each_kind
@pytest.mark.parametrize(
    ("after", "named"), [*((after, False) for after in AFTER), ("chain", True)]
)
def test_in_a_chain_each_does_its_own(rule, after, named):
    tx, rest = compiled(rule), AFTER[after]
    parts = (("rule", tx), ("rest", rest))
    chain = optax.named_chain(*parts) if named else optax.chain(tx, rest)
    state, own, other = (x.init(PARAMS) for x in (chain, tx, rest))
    for seed in range(2):
        found, state = update(chain, state, seed)
        combined, own = update(tx, own, seed)
        expected, other = rest.update(combined, other, PARAMS)
        equal(found, expected)
    equal(state["rule"] if named else state[0], own)


@of_each_kind
def test_within_a_partition_among_holes(rule):
    """Other labels' leaves are `MaskedNode` there, and what is no array is `None`."""
    parts = {
        "shared": optax.chain(compiled(rule), optax.sgd(0.1)),
        "own": optax.chain(mmp.aggregate(mmp.weightings.mean(), GROUPS), optax.sgd(1)),
    }
    tx = optax.partition(parts, LABELS | {"none": None})
    params = PARAMS | {"none": None}
    grads = stacked()
    found, _ = update(tx, tx.init(params), grads=grads | {"none": None}, params=params)
    plain, _ = update(compiled(rule), compiled(rule).init(PARAMS))
    assert found["none"] is None
    close(found["trunk"], jax.tree.map(lambda x: -0.1 * x, plain["trunk"]))
    equal(found["head"], -grads["head"][0])
    equal(found["idle"], jnp.zeros(2))


@of_each_kind
@pytest.mark.parametrize(
    "params",
    [{}, None, {"trunk": None}, {"trunk": optax.MaskedNode()}],
    ids=["empty", "None", "None leaf", "MaskedNode"],
)
def test_no_parameters(rule, params):
    tx = compiled(rule)
    updates, state = update(tx, tx.init(params), grads=params, params=params)
    assert updates == params
    assert state.diagnostics == {}


@of_each_kind
def test_multi_steps_after_it(rule):
    """The mean of combined updates."""
    steps = optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()
    tx, plain = optax.chain(compiled(rule), steps), compiled(rule)
    state, own = tx.init(PARAMS), plain.init(PARAMS)
    (first, state), (one, own) = update(tx, state, 0), update(plain, own, 0)
    (second, _), (two, _) = update(tx, state, 1), update(plain, own, 1)
    equal(first, jax.tree.map(jnp.zeros_like, PARAMS))
    close(second, jax.tree.map(lambda x, y: -0.1 * (x + y) / 2, one, two))


@of_each_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_apply_if_finite_after_it_skips_the_step(rule, bad):
    rest = optax.apply_if_finite(optax.sgd(0.1), 3)
    tx, plain = optax.chain(compiled(rule), rest), compiled(rule)
    state, own = tx.init(PARAMS), plain.init(PARAMS)
    for seed, grads in enumerate((stacked(0), spoiled(1, bad), stacked(2))):
        found, state = update(tx, state, seed, grads=grads)
        combined, own = update(plain, own, seed, grads=grads)
        factor = 0.0 if seed == 1 else -0.1
        close(found, jax.tree.map(lambda x, f=factor: f * jnp.nan_to_num(x), combined))
    assert optax.tree.get(state, "total_notfinite") == 1


# --- Wrapped or placed wrongly


def own_gradients():
    return jax.tree.map(lambda x: 2 * x, PARAMS)


NOT_STACKED = r"leaf 'head' has its parameter's own shape \(3,\).*not stacked"
RULE = transformation("paper")
AROUND = optax.chain(RULE, optax.sgd(0.1))
WRONG = {
    "MultiSteps around": (optax.MultiSteps(AROUND, 2), stacked, NOT_STACKED),
    "never stacked": (AROUND, own_gradients, NOT_STACKED),
    "after an optimiser": (
        optax.chain(optax.adam(0.1), RULE),
        own_gradients,
        NOT_STACKED,
    ),
    "combined twice": (optax.chain(RULE, AROUND), stacked, NOT_STACKED),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_we_refuse(case):
    tx, grads, message = WRONG[case]
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=message):
        tx.update(grads(), state, PARAMS)


def test_apply_if_finite_around_it_is_refused_by_jax():
    tx = optax.apply_if_finite(AROUND, 3)
    with pytest.raises(TypeError, match=r"(?s)cond.*output types.*\['head'\]"):
        tx.update(stacked(), tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    "tx",
    [
        optax.adam(0.1),
        optax.chain(
            optax.masked(RULE, {"trunk": False, "head": True, "idle": True}),
            optax.sgd(0.1),
        ),
        optax.partition({"shared": optax.adam(0.1), "own": AROUND}, LABELS),
    ],
    ids=["without it", "masked around", "partition without it"],
)
def test_stacked_gradients_that_miss_it(tx):
    """No rule sees these: they end where shapes are strict, or else in the params."""

    def step():
        updates, _ = tx.update(stacked(), tx.init(PARAMS), PARAMS)
        return optax.apply_updates(PARAMS, updates)

    with pytest.raises(ValueError, match="could not be broadcast together"):
        step()
    with jax.numpy_rank_promotion("allow"):
        assert step()["trunk"]["bias"].shape == (3, 4)


# --- Meshes


AXES = {
    "explicit": (AxisType.Explicit, AxisType.Explicit),
    "auto": (AxisType.Auto, AxisType.Auto),
    "mixed": (AxisType.Explicit, AxisType.Auto),
}
LAYOUT = {
    "trunk": {"kernel": P("model", "data"), "bias": P("data")},
    "head": P(),
    "idle": P("model"),
}


def placed(kind):
    """A mesh, and the parameters and gradients on it."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), AXES[kind])

    def put(tree, *lead):
        return jax.tree.map(
            lambda x, spec: jax.device_put(x, NamedSharding(mesh, P(*lead, *spec))),
            tree,
            LAYOUT,
        )

    return mesh, put


def sharded_steps_equal_one_device(rule, kind):
    mesh, put = placed(kind)
    grads, losses, taken = inputs()
    with jax.set_mesh(mesh):
        steps = jax.jit(functools.partial(scanned, transformation(rule)))
        found = steps(put(PARAMS), (put(grads, None, None), losses, taken))
    close(found, scanned_on_one_device(rule))
    if kind == "explicit":
        for x, y in zip(*map(jax.tree.leaves, (found[0], put(PARAMS))), strict=True):
            assert x.sharding.is_equivalent_to(y.sharding, x.ndim)


def test_sharded_steps(rule):
    """Types say where values lie: what a rule may do wrong on any mesh is seen here."""
    sharded_steps_equal_one_device(rule, "explicit")


def test_sharded_steps_are_traced_on_an_auto_mesh(rule):
    mesh, put = placed("auto")
    grads, losses, taken = inputs()
    with jax.set_mesh(mesh):
        steps = functools.partial(scanned, transformation(rule))
        given = put(PARAMS), (put(grads, None, None), losses, taken)
        params, _ = jax.eval_shape(steps, *given)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, PARAMS)


@pytest.mark.slow
@of_each_kind
def test_sharded_steps_on_a_mixed_mesh(rule):
    sharded_steps_equal_one_device(rule, "mixed")


@pytest.mark.slow
@of_each_way
def test_sharded_steps_on_an_auto_mesh(rule):
    sharded_steps_equal_one_device(rule, "auto")


@pytest.mark.slow
@of_each_kind
def test_eager_on_a_mesh(rule):
    """Operation by operation, where nothing but its arguments says what the mesh is."""
    eager_on_a_mesh(rule, set_mesh=False)


@pytest.mark.slow
@of_each_way
def test_eager_on_a_mesh_that_is_set(rule):
    eager_on_a_mesh(rule, set_mesh=True)


def eager_on_a_mesh(rule, set_mesh):
    expected = update(compiled(rule), compiled(rule).init(PARAMS))
    mesh, put = placed("explicit")
    tx = transformation(rule)
    with jax.set_mesh(mesh) if set_mesh else contextlib.nullcontext():
        params = put(PARAMS)
        found = update(tx, tx.init(params), grads=put(stacked(), None), params=params)
    close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [x for x in FACTORIES if x not in (*KINDS, "excess_mtl", "moco")]
)
def test_a_rule_alone_is_eager_on_a_mesh(name):
    """As the kinds are above, which are more than the rule; as aggregators are."""
    rule, num = weighting(name), len(OBJECTIVES)
    losses = jnp.stack(list(losses_at().values()))
    if isinstance(rule, mmp.LossWeighting):
        given, more = losses, {}
    else:
        assert isinstance(rule, mmp.Weighting), "an Aggregator is a kind of its own"
        given = mmp.gramian(stacked()["trunk"])
        more = {"losses": losses, "cross": given, "rows": jnp.ones(num), "scale": 1.0}
        more = {key: more[key] for key in rule.extras}
    mesh, _ = placed("explicit")
    on_mesh = jax.device_put((given, more), NamedSharding(mesh, P()))
    state = rule.init(num)

    def sums(weights, given, more):
        found, after = weights(given, state, **more)
        return found @ given, after

    expected = sums(jax.jit(rule.weights), given, more)
    close(sums(rule.weights, *on_mesh), expected)


def averaged(tx, kind):
    """An update inside shard_map, of the mean over the devices."""
    mesh = jax.make_mesh((8,), ("data",), (kind,))

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P())
    def mapped(shard):
        grads, losses = lax.pmean(jax.tree.map(lambda x: x[0], shard), "data")
        return update(tx, tx.init(PARAMS), grads=grads, losses=losses)

    return mapped


def shards():
    each = [(stacked(seed), losses_at(seed)) for seed in range(8)]
    return jax.tree.map(lambda *x: jnp.stack(x), *each)


def shards_on(kind):
    """One on each device of the mesh of `averaged`."""
    mesh = jax.make_mesh((8,), ("data",), (kind,))
    return jax.device_put(shards(), NamedSharding(mesh, P("data")))


def test_types_inside_shard_map(rule):
    """What JAX demands of loops and conds there; they do not vary over devices."""
    types_inside_shard_map(rule, AxisType.Explicit)


@of_each_kind
def test_types_inside_shard_map_of_an_auto_mesh(rule):
    types_inside_shard_map(rule, AxisType.Auto)


def types_inside_shard_map(rule, kind):
    tx = transformation(rule)
    updates, state = jax.eval_shape(averaged(tx, kind), shards_on(kind))
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(PARAMS))


@pytest.mark.slow
@of_each_kind
def test_numbers_inside_shard_map(rule):
    tx = compiled(rule)
    grads, losses = jax.tree.map(lambda x: x.mean(axis=0), shards())
    expected = update(tx, tx.init(PARAMS), grads=grads, losses=losses)
    close(jax.jit(averaged(transformation(rule), AxisType.Auto))(shards()), expected)


# --- Frameworks: one model, its numbers from a plain dict, in each of them


INPUTS, TARGETS = (
    jnp.asarray(np.random.default_rng(0).normal(size=(8, n)), jnp.float32)
    for n in (4, 1)
)


def numbers():
    rng = np.random.default_rng(1)

    def linear(*shape):
        return {
            "kernel": jnp.asarray(rng.normal(size=shape), jnp.float32),
            "bias": jnp.zeros(shape[1]),
        }

    return {"encoder": linear(4, 3), "head": linear(3, 1)}


def losses_of(encoder, head):
    features = jnp.tanh(encoder(INPUTS))
    return {
        "joint": jnp.mean((head(features) - TARGETS) ** 2),
        "audio": jnp.mean((features - 1) ** 2),
    }


def engine_of(losses_fn, params):
    """The compiled gradients and the transformation, as a user makes them."""
    groups = mmp.objective_groups(losses_fn, params)
    assert [tuple(x) for x in groups.groups.values()] == [
        ("joint", "audio"),
        ("joint",),
    ]
    grads_fn = jax.jit(mmp.value_and_objective_grads(losses_fn, groups))
    tx = optax.chain(mmp.mmpareto(groups), optax.adam(0.1))
    return (lambda params: grads_fn(params)[1]), tx


def two_steps(losses_fn, params, apply_updates=optax.apply_updates):
    grads_fn, tx = engine_of(losses_fn, params)
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(grads_fn(params), state, params)
        params = apply_updates(params, updates)
    return params


@functools.cache
def reference():
    def losses_fn(params):
        def layer(p):
            return lambda x: x @ p["kernel"] + p["bias"][None]

        return losses_of(layer(params["encoder"]), layer(params["head"]))

    return two_steps(losses_fn, numbers())


class Model(nnx.Module):
    def __init__(self):
        self.encoder = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
        nnx.update(self, numbers())


def test_nnx_optimizer():
    model = Model()
    graphdef, params = nnx.split(model, nnx.Param)

    def losses_fn(params):
        merged = nnx.merge(graphdef, params, copy=True)
        return losses_of(merged.encoder, merged.head)

    grads_fn, tx = engine_of(losses_fn, params)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for _ in range(2):
        optimizer.update(model, grads_fn(nnx.state(model, nnx.Param)))
    close(nnx.to_pure_dict(nnx.state(model, nnx.Param)), reference())
    assert "joint+audio" in mmp.diagnostics(optimizer.opt_state)


def test_nnx_labels():
    """A state of labels serves both a state and what `nnx.Optimizer` makes of it."""
    model = Model()
    params = nnx.state(model, nnx.Param)
    labels = nnx.map_state(lambda path, _: path[0], params)
    parts = {"encoder": optax.sgd(0.1), "head": optax.sgd(1.0)}
    tx = optax.chain(mmp.mmpareto(2), optax.partition(parts, labels))
    grads = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    updates, _ = tx.update(grads, tx.init(params), params)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.update(model, grads)
    for path, rate in (("encoder", 0.1), ("head", 1.0)):
        before, after = numbers()[path], nnx.to_pure_dict(nnx.state(model))[path]
        step = jax.tree.map(lambda x, r=rate: -r * 1.5 * 3 * x, before)
        close(nnx.to_pure_dict(updates)[path], step)
        close(after, optax.apply_updates(before, step))


class LinenModel(linen.Module):
    def setup(self):
        self.encoder, self.head = linen.Dense(3), linen.Dense(1)

    def __call__(self):
        return losses_of(self.encoder, self.head)


def test_linen_train_state():
    model = LinenModel()
    variables = {"params": numbers()}
    chex.assert_trees_all_equal_shapes(variables, model.init(jax.random.key(0)))
    grads_fn, tx = engine_of(model.apply, variables)
    state = train_state.TrainState.create(apply_fn=model.apply, params=variables, tx=tx)
    for _ in range(2):
        state = state.apply_gradients(grads=grads_fn(state.params))
    assert state.step == 2
    close(state.params["params"], reference())


class EquinoxModel(eqx.Module):
    encoder: eqx.nn.Linear
    head: eqx.nn.Linear
    activation: str = "tanh"  # no array: a leaf that is None among the parameters


def test_equinox_module():
    def linear(p, key):
        layer = eqx.nn.Linear(*p["kernel"].shape, key=key)
        return eqx.tree_at(
            lambda x: (x.weight, x.bias), layer, (p["kernel"].T, p["bias"])
        )

    model = EquinoxModel(*(linear(p, jax.random.key(0)) for p in numbers().values()))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    assert params.activation is None

    def losses_fn(params):
        merged = eqx.combine(params, static)
        return losses_of(jax.vmap(merged.encoder), jax.vmap(merged.head))

    found = two_steps(losses_fn, params, eqx.apply_updates)
    for layer, p in zip((found.encoder, found.head), reference().values(), strict=True):
        close({"kernel": layer.weight.T, "bias": layer.bias}, p)


def test_haiku_parameters():
    @hk.without_apply_rng
    @hk.transform
    def losses_fn():
        return losses_of(hk.Linear(3, name="encoder"), hk.Linear(1, name="head"))

    names = {"w": "kernel", "b": "bias"}
    params = {
        path: {k: p[name] for k, name in names.items()} for path, p in numbers().items()
    }
    chex.assert_trees_all_equal_shapes(params, losses_fn.init(jax.random.key(0)))
    found = two_steps(losses_fn.apply, params)
    for path, p in reference().items():
        close({name: found[path][k] for k, name in names.items()}, p)
