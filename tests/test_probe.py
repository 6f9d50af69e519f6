"""The probe: what explicit gradients say, at every size and scale, in one sentence."""

import functools
import itertools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from combined import audio_visual, heads, normal
from flax import nnx
from jax.sharding import PartitionSpec as P

import mmpareto_jax as mmp


def gradients(losses_fn, params, args, names, chosen=lambda path: True):
    """One by one, by jax alone: [K, P] float64, of the parameters that are chosen."""

    @jax.jit
    def grad(params, k):
        def loss(params):
            losses = losses_fn(params, *args)
            return jnp.stack([losses[name] for name in names])[k]

        return jax.grad(loss)(params)

    return np.stack([flat(grad(params, k), chosen) for k in range(len(names))])


def flat(tree, chosen=lambda path: True):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = [
        (jax.tree_util.keystr(p, simple=True, separator="/"), x) for p, x in leaves
    ]
    return np.concatenate([np.float64(x).ravel() for p, x in named if chosen(p)])


def expected(rows, update=None):
    """By the formulae, in float64."""
    norms = np.linalg.norm(rows, axis=1)
    units, total = rows / norms[:, None], rows.sum(0)
    cosines = units @ units.T
    pairs = list(itertools.combinations(range(len(rows)), 2))
    with jax.enable_x64(True):
        weights = np.asarray(mmp.min_norm_weights(jnp.asarray(rows @ rows.T)))
    point = weights @ rows
    size = np.linalg.norm(total)
    found = {
        "norms": norms,
        "cosines": cosines,
        "similarities": 2
        * np.outer(norms, norms)
        / (norms[:, None] ** 2 + norms[None] ** 2),
        "alignment": 2 * np.sum(units.mean(0) ** 2) - 1,
        "conflicts": np.mean([cosines[i, j] < 0 for i, j in pairs]) if pairs else 0.0,
        "sum_descent": units @ total / size,
        "min_norm_cosine": point @ total / np.linalg.norm(point) / size,
        "min_norm_length": np.linalg.norm(point) / np.linalg.norm(rows.mean(0)),
    }
    if update is not None:
        found["update_norm"] = np.linalg.norm(update)
        found["update_descent"] = -units @ update / np.linalg.norm(update)
        found["update_change"] = rows @ update
    return found


def assert_is(reading, truth, digits=1e-5):
    for name, value in truth.items():
        found = getattr(reading, name)
        lengths = name in ("norms", "update_norm", "update_change")
        scale = np.max(np.abs(value)) if lengths else 1.0
        np.testing.assert_allclose(
            found, value, rtol=digits, atol=digits * scale, err_msg=name
        )


def adam(losses_fn, params, args, steps=2):
    """An update after some steps, and the parameters before it."""
    tx = optax.adamw(0.1)
    state = tx.init(params)
    grad = jax.jit(jax.grad(lambda p: sum(losses_fn(p, *args).values())))
    for _ in range(steps):
        grads = grad(params)
        update, state = tx.update(grads, state, params)
        before, params = params, optax.apply_updates(params, update)
    return update, before


# --- By hand


def plane(*rows):
    """Losses whose gradients are these rows."""
    return lambda w: {str(k): jnp.dot(jnp.asarray(x), w) for k, x in enumerate(rows)}


def read(*rows, update=None):
    dtype = jnp.asarray(rows[0]).dtype
    found = mmp.probe(plane(*rows))(jnp.zeros(len(rows[0]), dtype), update=update)
    return found.whole


def test_by_hand():
    """The sum, (2, 1), raises the second; the min-norm point is (3, 12) / 17."""
    found = read([3.0, 0.0], [-1.0, 1.0], update=jnp.array([-2.0, 0.0]))
    root = np.sqrt(0.5)
    assert_is(
        found,
        {
            "norms": [3, np.sqrt(2)],
            "cosines": [[1, -root], [-root, 1]],
            "similarities": [[1, 6 * np.sqrt(2) / 11], [6 * np.sqrt(2) / 11, 1]],
            "alignment": -root,
            "conflicts": 1.0,
            "sum_descent": [2 / np.sqrt(5), -1 / np.sqrt(10)],
            "min_norm_cosine": 18 / np.sqrt(153 * 5),
            "min_norm_length": np.sqrt(153) / 17 * 2 / np.sqrt(5),
            "update_norm": 2.0,
            "update_descent": [1, -root],
            "update_change": [-6, 2],
        },
        1e-6,
    )
    assert found.sum_raises.tolist() == [False, True]
    assert found.update_raises.tolist() == [False, True]
    assert read([3.0, 0.0], [-1.0, 1.0]).update_raises is None


def test_one_objective_agrees_with_itself():
    found = read([3.0, 4.0])
    assert_is(found, {"norms": [5], "cosines": [[1]], "similarities": [[1]]})
    assert_is(found, {"alignment": 1, "conflicts": 0, "sum_descent": [1]})
    assert_is(found, {"min_norm_cosine": 1, "min_norm_length": 1})


def test_a_zero_gradient():
    found = read([3.0, 4.0], [0.0, 0.0], update=jnp.zeros(2))
    np.testing.assert_array_equal(found.cosines, np.eye(2))
    np.testing.assert_array_equal(found.similarities, np.eye(2))
    for name in ("alignment", "conflicts", "min_norm_cosine", "min_norm_length"):
        assert getattr(found, name) == 0
    np.testing.assert_allclose(found.sum_descent, [1, 0], rtol=1e-6)
    for name in ("update_norm", "update_descent", "update_change"):
        assert not np.any(getattr(found, name))


def test_opposite_gradients_have_no_sum():
    found = read([0.3, 0.7], [-0.3, -0.7])
    assert not np.any(found.sum_descent)
    assert not found.sum_raises.any()
    assert found.min_norm_length == found.min_norm_cosine == 0
    np.testing.assert_allclose(found.alignment, -1, atol=1e-6)
    assert found.conflicts == 1


def test_a_gradient_that_is_not_finite():
    """What does not have it is told as ever."""
    found = read([3.0, 0.0], [-1.0, 1.0], [jnp.nan, 0.0], update=jnp.array([1.0, 0.0]))
    finite = read([3.0, 0.0], [-1.0, 1.0], update=jnp.array([1.0, 0.0]))
    for name in ("norms", "update_descent", "update_change"):
        np.testing.assert_allclose(getattr(found, name)[:2], getattr(finite, name))
        assert np.isnan(getattr(found, name)[2])
    for name in ("cosines", "similarities"):
        np.testing.assert_allclose(getattr(found, name)[:2, :2], getattr(finite, name))
        assert np.isnan(getattr(found, name)[2]).all()
    for name in ("alignment", "conflicts", "sum_descent"):
        assert np.isnan(getattr(found, name)).all()
    assert np.isnan(found.min_norm_cosine)
    assert np.isnan(found.min_norm_length)
    assert not found.sum_raises.any()
    assert found.update_raises.tolist() == [True, False, False]


@pytest.mark.parametrize("exponents", [(30, -30), (-30, -30), (25, 25), (-33, 20)])
def test_gradients_of_unlike_scales(exponents):
    """float32, whose squares are out of range, against float64."""
    rows = normal(3, 2, 5) * np.array([[1.0], [-0.3]])
    rows = rows * 10.0 ** np.array(exponents)[:, None]
    assert_is(read(*np.float32(rows)), expected(np.float64(np.float32(rows))), 2e-5)


# --- Against jax.grad


@pytest.mark.parametrize("pullback", ["unroll", "vmap"])
@pytest.mark.parametrize("num", [2, 8, 40])
def test_it_is_what_explicit_gradients_say(num, pullback):
    losses_fn, params, args = heads(num)
    params, args = jax.tree.map(jnp.float32, (params, args))
    update, params = adam(losses_fn, params, args)
    look = jax.jit(mmp.probe(losses_fn, layers=num < 40, pullback=pullback))
    found = look(params, *args, update=update)
    names = [str(k) for k in range(num)]
    assert found.whole.objectives == tuple(names)

    def truth(chosen, names):
        rows = gradients(losses_fn, params, args, names, chosen)
        return expected(rows, flat(update, chosen))

    assert_is(found.whole, truth(lambda path: True, names), 1e-4)
    shared = "+".join(names)
    assert list(found.groups) == [shared, *sorted(names, key=int)]
    trunk = truth(lambda path: path.startswith("trunk"), names)
    assert_is(found.groups[shared], trunk, 1e-4)
    head = truth(lambda path: path == "heads/1", ["1"])
    assert_is(found.groups["1"], head, 1e-4)
    if found.layers:
        layer = truth(lambda path: path == "trunk/1", names)
        assert_is(found.layers["trunk/1"], layer, 1e-4)


def test_of_the_whole_an_objective_has_zeros_where_it_does_not_reach(x64):
    losses_fn, params, args = audio_visual()
    params, args = jax.tree.map(jnp.float64, (params, args))
    found = mmp.probe(losses_fn)(params, *args)
    names = ("joint", "audio", "visual")
    truth = expected(gradients(losses_fn, params, args, names))
    assert_is(found.whole, truth, 1e-12)
    encoder = gradients(
        losses_fn, params, args, names[:2], lambda path: path.startswith("audio")
    )
    assert_is(found.groups["joint+audio"], expected(encoder), 1e-12)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("float64")}
    assert "none" not in found.groups


def test_parameters_of_low_precision():
    losses_fn, params, args = heads(3)
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (params, args))
    update = jax.tree.map(lambda x: -0.1 * jnp.float32(x), half[0])
    found = mmp.probe(losses_fn)(half[0], *half[1], update=update)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    rows = [
        flat(jax.grad(lambda p, k=k: losses_fn(p, *half[1])[k])(half[0])) for k in "012"
    ]
    assert_is(found.whole, expected(np.stack(rows), flat(update)), 0.05)


def test_layers():
    """A kernel and its bias are one, if the same objectives reach them."""

    def losses_fn(params):
        every = jnp.sum(params["first"]["kernel"]) * jnp.sum(params["first"]["bias"])
        mixed, top = params["mixed"], jnp.sum(params["top"])
        return {
            "a": every * mixed["kernel"] * params["stack"][0] * top,
            "b": every * mixed["kernel"] * mixed["bias"] * params["stack"][1],
        }

    params = {
        "first": {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([-1.0])},
        "mixed": {"kernel": jnp.array(2.0), "bias": jnp.array(3.0)},
        "stack": [jnp.array(1.0), jnp.array(0.5)],
        "top": jnp.array([1.0]),
    }
    look = mmp.probe(losses_fn, layers=True)
    found = look(params)
    layers = {"first", "mixed/bias", "mixed/kernel", "stack/0", "stack/1", "top"}
    assert set(found.layers) == layers
    assert not mmp.probe(losses_fn)(params).layers
    rows = gradients(losses_fn, params, (), "ab", lambda path: path.startswith("first"))
    assert_is(found.layers["first"], expected(rows), 1e-5)
    assert found.layers["stack/1"].objectives == ("b",)


# --- How it is called


def test_of_a_flax_model():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)
    x = jnp.asarray(normal(0, 4, 3))

    def losses_fn(params, x):
        y = nnx.merge(graphdef, params)(x)
        return {"left": jnp.mean(y[:, 0] ** 2), "both": jnp.mean((y - 1) ** 2)}, y

    tx = optax.sgd(0.1)
    grads = jax.grad(lambda p: sum(losses_fn(p, x)[0].values()))(params)
    update, _ = tx.update(grads, tx.init(params), params)
    found = mmp.probe(losses_fn, layers=True, has_aux=True)(params, x, update=update)
    np.testing.assert_allclose(
        found.whole.update_descent, found.whole.sum_descent, rtol=1e-5
    )
    assert list(found.groups) == ["left+both"]


def test_groups_of_ones_own():
    """A layer each; objectives in another order than that of the losses."""
    losses_fn, params, args = heads(2)
    layers = {f"trunk/{i}": ("1", "0") for i in range(3)}
    own = mmp.ObjectiveGroups.from_prefixes(
        layers | {"heads/0": ("0",), "heads/1": ("1",)}, ("1", "0")
    )
    found = mmp.probe(losses_fn, own)(params, *args)
    assert list(found.groups) == list(own.groups)
    rows = gradients(losses_fn, params, args, "10", lambda path: path == "trunk/2")
    assert_is(found.groups["trunk/2"], expected(rows), 1e-4)
    assert found.whole.objectives == ("0", "1")
    assert_is(found.whole, expected(gradients(losses_fn, params, args, "01")), 1e-4)


def test_gradients_that_are_sharded_over_a_mesh():
    """Each device has a part of the parameters; the losses are sums over parts."""
    mesh = jax.make_mesh((8,), ("model",), (jax.sharding.AxisType.Auto,))
    params = jnp.asarray(normal(0, 16))
    update, goal = jnp.asarray(normal(1, 16)), jnp.asarray(normal(2, 16))

    def losses_fn(w, goal):
        return {"a": jnp.sum(w**2), "b": jnp.sum((w - goal) ** 2)}

    def mapped(axis_name):
        look = mmp.probe(losses_fn, axis_name=axis_name)

        def run(w, goal, update):
            return look(w, goal, update=update)

        return jax.jit(
            jax.shard_map(run, mesh=mesh, in_specs=P("model"), out_specs=P())
        )

    found = mapped("model")(params, goal, update)
    truth = expected(gradients(losses_fn, params, (goal,), "ab"), np.float64(update))
    assert_is(found.whole, truth, 1e-5)
    with pytest.raises(ValueError, match="probe: leaf '' varies over the mesh axis"):
        mapped(None)(params, goal, update)


def test_it_goes_through_scan_and_jit():
    losses_fn, params, args = audio_visual()
    look = mmp.probe(losses_fn)
    scales = jnp.array([1.0, -1.0, 2.0])

    def one(_, scale):
        return None, look(jax.tree.map(lambda x: scale * x, params), *args)

    _, many = jax.jit(lambda: jax.lax.scan(one, None, scales))()
    each = [look(jax.tree.map(lambda x, s=s: s * x, params), *args) for s in scales]
    assert mmp.summarize(many) == mmp.summarize(each)
    assert list(many.groups) == list(each[0].groups)
    np.testing.assert_allclose(
        many.whole.cosines, np.stack([x.whole.cosines for x in each]), atol=1e-5
    )
    assert str(many).startswith("Probe(")
    texts = []
    jax.jit(lambda p: texts.append(str(look(p, *args))))(params)
    assert texts[0].startswith("Probe(")


def test_errors():
    losses_fn, params, args = heads(2)
    with pytest.raises(TypeError, match="must be an ObjectiveGroups or None, got int"):
        mmp.probe(losses_fn, 2)
    with pytest.raises(ValueError, match="probe: `pullback` must be"):
        mmp.probe(losses_fn, pullback="map")
    look = mmp.probe(losses_fn)
    with pytest.raises(TypeError, match="probe: parameter 'heads/0' must be"):
        look({**params, "heads": [1, 2]}, *args)
    with pytest.raises(ValueError, match="`update` must be a tree like the parameters"):
        look(params, *args, update=params["trunk"])
    stacked = jax.tree.map(lambda x: x[None], params)
    with pytest.raises(ValueError, match=r"shape \(1, 8\) at 'heads/0', and the param"):
        look(params, *args, update=stacked)
    whole = jax.tree.map(lambda x: x.astype(int), params)
    with pytest.raises(TypeError, match="`update` must be real and floating, got int"):
        look(params, *args, update=whole)
    wrong = mmp.ObjectiveGroups.from_prefixes({"": ("0", "1")})
    with pytest.raises(ValueError, match="probe: parameter 'heads/0' is in group ''"):
        mmp.probe(losses_fn, wrong)(params, *args)


# --- What it says

PAGE = pathlib.Path(__file__).parents[1] / "notebooks" / "docs" / "probe.md"
QUADRATICS = (-1.0, 1.0, 3.0, 5.0)


def between(x):
    return {"low": jnp.sum(x**2), "high": jnp.sum((x - 4) ** 2)}


def seen(points=QUADRATICS, update=None):
    look = mmp.probe(between)
    given = None if update is None else jnp.array([update])
    return [look(jnp.array([x]), update=given) for x in points]


def test_the_sentence_counts():
    text = mmp.summarize(seen(update=1.0))
    assert text == (
        "In 4 probes the sum raises `low` in 25 % and `high` in 25 %, what is applied "
        "raises `low` in 75 % and `high` in 25 %; a pair of gradients conflicts in "
        "50 % (`low+high` 50 %), and only there can a rule against conflicts turn "
        "the sum."
    )
    records = [{k: float(x) for k, x in p.scalars().items()} for p in seen(update=1.0)]
    assert mmp.summarize(records) == text


def test_the_sentence_of_harmony():
    assert mmp.summarize(seen((-1.0, 5.0), update=0.0)) == (
        "In 2 probes the sum raises no objective, what is applied raises none; no pair "
        "of gradients conflicts, so no rule against conflicts turns it."
    )


def test_the_sentence_leaves_out_what_is_not_finite():
    probes = seen((-1.0, np.nan, 3.0))
    text = mmp.summarize(probes)
    assert text.startswith("In 2 probes (1 more has gradients that are not finite) the")
    records = [
        {k: float(x) if np.isfinite(x) else None for k, x in p.scalars().items()}
        for p in probes
    ]
    assert mmp.summarize(records) == text
    assert mmp.summarize(probes[1:2]) == (
        "In none of 1 probes all gradients are finite."
    )
    with pytest.raises(ValueError, match="expected at least one probe, got none"):
        mmp.summarize([])


@pytest.mark.parametrize(
    ("share", "text"), [(1 / 300, "0.3 %"), (3 / 300, "1 %"), (300 / 300, "100 %")]
)
def test_shares_are_never_rounded_to_nothing(share, text):
    once = functools.partial(dict, {"sum_descent/a": -1.0})
    never = functools.partial(dict, {"sum_descent/a": 1.0})
    num = round(300 * share)
    probes = [once() for _ in range(num)] + [never() for _ in range(300 - num)]
    assert f"raises `a` in {text};" in mmp.summarize(probes)


def test_the_table():
    losses_fn, params, args = audio_visual()
    update = jax.tree.map(jnp.asarray, params)
    found = mmp.probe(losses_fn)(params, *args, update=update)
    shared, each = str(found).split("\n\n")
    assert [line.split()[0] for line in shared.splitlines()] == [
        *("parameters", "(all)", "joint+audio", "joint+visual")
    ]
    joint = found.groups["joint+audio"]
    row = shared.splitlines()[2].split()
    assert row[1:5] == [
        f"{joint.cosines[0, 1]:.2f}",
        f"{joint.similarities[0, 1]:.2f}",
        f"{joint.alignment:.2f}",
        f"{100 * joint.conflicts:.0f}",
    ]
    raised = [line.split()[0] for line in each.splitlines() if "↑" in line]
    descents = [x.update_descent for x in (found.whole, *found.groups.values())]
    sums = [x.sum_descent for x in (found.whole, *found.groups.values())]
    assert each.count("↑") == sum(
        (np.concatenate(x) < 0).sum() for x in (descents, sums)
    )
    assert raised
    assert "by the update" not in str(mmp.probe(losses_fn)(params, *args))


BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(2))
def test_the_pages_code_runs(number, capsys):
    assert len(BLOCKS) == 2
    exec(compile(BLOCKS[number], PAGE.name, "exec"), {})
    out = capsys.readouterr().out
    assert "by the update" in out
    assert ("In 20 probes the sum raises " in out) == (number == 0)
