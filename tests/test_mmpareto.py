"""The ten properties of MMPareto, the hand-computed cases, and its arguments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmpareto_jax as mmp

GAMMA = 1.5
VARIANTS = ["paper", "official"]
SEEDS = range(3)


@functools.cache
def compiled(num, variant):
    """γ and gradients to updates and diagnostics; γ is traced, so compiled once."""

    @jax.jit
    def update(gamma, grads):
        tx = mmp.mmpareto(num, gamma=gamma, variant=variant)
        params = jax.tree.map(lambda x: x[0], grads)
        updates, state = tx.update(grads, tx.init(params), params)
        return updates, mmp.diagnostics(state)["all"]

    return update


def combine(grads, gamma=GAMMA, variant="paper"):
    """The update and the diagnostics of one step on a dict of stacked gradients."""
    num = next(iter(grads.values())).shape[0]
    return compiled(num, variant)(gamma, grads)


def rows_of(grads):
    """Stacked leaves as a matrix [K, P], in float64."""
    leaves = [np.asarray(grads[path], np.float64) for path in sorted(grads)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


def flat(updates):
    """Leaves as one vector [P], in float64."""
    return rows_of({path: x[None] for path, x in updates.items()})[0]


def split(rows, dtype=jnp.float32):
    """Stacked leaves from an array [K, 17]; the inverse of `rows_of`."""
    bias, kernel = np.split(np.asarray(rows), [5], axis=1)
    return {
        "bias": jnp.asarray(bias, dtype),
        "kernel": jnp.asarray(kernel.reshape(-1, 3, 4), dtype),
    }


def random(seed, num=2, conflict=True, dtype=jnp.float32):
    """Gradients of different sizes, all pairs in conflict or none, by `conflict`."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num, 17))
    # A shared part of either sign decides about the conflicts.
    common = rng.normal(size=17)
    signs = np.where(np.arange(num) % 2, -1.0, 1.0) if conflict else np.ones(num)
    rows = (rows + 1.5 * signs[:, None] * common) * rng.uniform(0.3, 3, size=(num, 1))
    gram = rows @ rows.T
    assert (gram.min() < 0) == conflict
    return split(rows, dtype)


def simplex(diagnostics):
    weights = np.asarray(diagnostics["weights"], np.float64)
    return weights / weights.sum()


# --- The conflict branch is taken, and means something


def test_a_conflicting_pair_takes_the_conflict_branch_and_gets_unequal_weights():
    """From the losses to the update: were the rows all the sum, cosine would be 1."""

    def losses_fn(params):
        w = params["encoder"]
        return {"joint": jnp.sum((w - 3) ** 2), "audio": 0.1 * jnp.sum((w + 1) ** 2)}

    params = {"encoder": jnp.array([0.0, 1.0, 2.0])}
    _, grads = mmp.value_and_objective_grads(losses_fn)(params)
    tx = mmp.mmpareto(("joint", "audio"))
    updates, state = tx.update(grads, tx.init(params), params)
    found = mmp.diagnostics(state)["all"]

    joint, audio = 2 * np.array([-3.0, -2.0, -1.0]), 0.2 * np.array([1.0, 2.0, 3.0])
    cosine = joint @ audio / np.linalg.norm(joint) / np.linalg.norm(audio)
    difference = joint - audio
    share = (audio @ audio - joint @ audio) / (difference @ difference)
    direction = share * joint + (1 - share) * audio
    length = GAMMA * np.linalg.norm(joint + audio) / np.linalg.norm(direction)

    assert cosine < 0
    assert found["conflict"]
    np.testing.assert_allclose(found["cosine"], cosine, rtol=1e-6)
    np.testing.assert_allclose(simplex(found), [share, 1 - share], rtol=1e-6)
    assert abs(share - 0.5) > 0.2
    np.testing.assert_allclose(updates["encoder"], length * direction, rtol=1e-5)
    # The uniform sum ascends the weaker objective here; MMPareto descends both.
    assert (joint + audio) @ audio < 0
    assert np.asarray(updates["encoder"]) @ audio > 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_conflicting_weights_differ(seed, variant):
    grads = random(seed)
    updates, found = combine(grads, variant=variant)
    assert found["conflict"]
    assert abs(simplex(found)[0] - 0.5) > 1e-3
    plain = GAMMA * rows_of(grads).sum(0)
    change = np.linalg.norm(flat(updates) - plain) / np.linalg.norm(plain)
    assert change > 1e-2


# --- Hand-computed cases

HAND = [
    # u, cosine, a_m, official, paper
    (
        [[-2, 1], [0, -1]],
        -0.8660254,
        0.64285714,
        [-0.41602515, 2.08012574, 0, 0.85714286],
        [-0.32732684, 1.63663418, 0, 1.30930734],
    ),
    ([[2, 1], [0, -1]], 0.28867513, 0.5, [4.5, 1.5, 0, 0], [4.5, 1.5, 0, 0]),
    ([[1, 0], [0, -1]], 0.0, 0.5, [3, 0, 0, 0], [3, 0, 0, 0]),
    (
        [[-3, 0.5], [0, 2]],
        -0.19425717,
        0.82608696,
        [2.9733486, 0.84952817, 0, 4.5],
        [1.36676504, 0.3905043, 0, 5.27180801],
    ),
]


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("variant", VARIANTS)
def test_hand_computed(case, variant, x64):
    u, cosine, share, official, paper = HAND[case]
    m = [[1.0, 0.0], [0.0, 1.0]]
    grads = {
        "kernel": jnp.array([m[0], u[0]], jnp.float64),
        "bias": jnp.array([m[1], u[1]], jnp.float64),
    }
    tx = mmp.mmpareto(2, variant=variant)
    updates, state = tx.update(grads, tx.init(jax.tree.map(lambda x: x[0], grads)))
    found = mmp.diagnostics(state)["all"]
    out = np.concatenate([updates["kernel"], updates["bias"]])
    expected = official if variant == "official" else paper
    np.testing.assert_allclose(out, expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found["cosine"], cosine, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(simplex(found)[0], share, rtol=1e-7)


def test_cosine_of_exactly_zero(x64):
    """`paper`: no conflict; `official`: the min-norm point, here of unequal norms."""
    grads = {"kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]], jnp.float64)}
    shares = {}
    for variant in VARIANTS:
        tx = mmp.mmpareto(2, variant=variant)
        _, state = tx.update(grads, tx.init({"kernel": jnp.zeros(2)}))
        shares[variant] = simplex(mmp.diagnostics(state)["all"])[0]
    np.testing.assert_allclose(shares["paper"], 0.5)
    np.testing.assert_allclose(shares["official"], 0.8)


# --- Property 1 to 5


@pytest.mark.parametrize("seed", SEEDS)
def test_the_shorter_gradient_weighs_more(seed):
    grads = random(seed)
    _, found = combine(grads)
    m, u = rows_of(grads)
    share, other = simplex(found)
    assert 0 < share < 1
    np.testing.assert_allclose(share + other, 1, rtol=1e-6)
    assert (share > 0.5) == (np.linalg.norm(m) < np.linalg.norm(u))
    np.testing.assert_allclose(share, (u @ u - m @ u) / ((m - u) @ (m - u)), rtol=1e-5)


@pytest.mark.parametrize("num", [2, 3, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_direction_descends_every_objective_equally(seed, num):
    rows = rows_of(grads := random(seed, num))
    updates, found = combine(grads)
    weights = simplex(found)
    point = weights @ rows
    inner, square = rows @ point, point @ point
    slack = 1e-5 * np.linalg.norm(rows, axis=1).max() * np.linalg.norm(point)
    np.testing.assert_allclose(inner[weights > 0], square, atol=slack)
    assert np.all(inner >= square - slack)
    out = flat(updates)
    cosine = out @ point / np.linalg.norm(out) / np.linalg.norm(point)
    np.testing.assert_allclose(cosine, 1, rtol=1e-5)


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_sum_is_longer_than_the_direction(seed, num):
    rows = rows_of(grads := random(seed, num))
    _, found = combine(grads)
    direction, total = num * simplex(found) @ rows, rows.sum(0)
    assert np.linalg.norm(direction) <= np.linalg.norm(total) * (1 + 1e-6)
    assert found["magnitude"] >= GAMMA * (1 - 1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_norms_need_no_enhancement(seed):
    rows = rows_of(random(seed))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    _, found = combine(split(rows))
    np.testing.assert_allclose(found["magnitude"], GAMMA, rtol=1e-5)
    np.testing.assert_allclose(simplex(found), 0.5, rtol=1e-5)


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("conflict", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_norm_is_that_of_the_sum(seed, conflict, num):
    grads = random(seed, num, conflict)
    updates, _ = combine(grads)
    np.testing.assert_allclose(
        np.linalg.norm(flat(updates)),
        GAMMA * np.linalg.norm(rows_of(grads).sum(0)),
        rtol=1e-5,
    )


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_without_conflict_it_is_the_sum(seed, variant, num):
    grads = random(seed, num, conflict=False)
    updates, found = combine(grads, variant=variant)
    assert not found["conflict"]
    np.testing.assert_allclose(
        flat(updates), GAMMA * rows_of(grads).sum(0), rtol=1e-5, atol=1e-5
    )


def test_one_conflicting_pair_of_three_is_a_conflict():
    rows = np.zeros((3, 17))
    rows[0, :2], rows[1, :2], rows[2, :3] = [1, 0.2], [-0.5, 1], [0.1, 0.1, 4]
    assert np.sum(np.triu(rows @ rows.T, 1) < 0) == 1
    updates, found = combine(split(rows))
    assert found["conflict"]
    assert np.all(rows @ flat(updates) > 0)


@pytest.mark.parametrize("seed", range(3))
def test_official_never_shortens_a_tensor(seed):
    """Upwards only: per tensor at least γ times the direction and times the sum."""
    grads = random(seed)
    updates, found = combine(grads, variant="official")
    share = simplex(found)
    for path, leaf in grads.items():
        rows = np.asarray(leaf, np.float64).reshape(2, -1)
        direction = 2 * share @ rows
        longest = max(np.linalg.norm(direction), np.linalg.norm(rows.sum(0)))
        np.testing.assert_allclose(
            np.linalg.norm(updates[path]), GAMMA * longest, rtol=1e-4
        )


def test_official_can_ascend_an_objective_and_paper_never_does():
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(4000, 2, 4)) * rng.uniform(0.1, 5, size=(4000, 2, 1))
    pairs = pairs[np.einsum("np,np->n", pairs[:, 0], pairs[:, 1]) < 0]
    grads = {
        "a": jnp.asarray(pairs[:, :, :2], jnp.float32),
        "b": jnp.asarray(pairs[:, :, 2:], jnp.float32),
    }
    ascents = {}
    for variant in VARIANTS:
        tx = mmp.mmpareto(2, variant=variant)
        state = tx.init({"a": jnp.zeros(2), "b": jnp.zeros(2)})
        updates, _ = jax.jit(jax.vmap(tx.update, in_axes=(0, None)))(grads, state)
        out = np.concatenate([updates["a"], updates["b"]], axis=1).astype(np.float64)
        inner = np.einsum("nkp,np->nk", pairs, out)
        bound = np.linalg.norm(pairs, axis=2) * np.linalg.norm(out, axis=1)[:, None]
        ascents[variant] = np.sum(np.any(inner < -1e-5 * bound, axis=1))
    assert len(pairs) > 1500
    assert ascents["paper"] == 0
    assert ascents["official"] > 10


# --- Property 6: scale

SCALES = {  # powers of two: scaling itself is exact
    jnp.float32: [2.0**k for k in (-66, -50, -20, 10, 30, 49)],  # 1.4e-20 to 5.6e14
    jnp.bfloat16: [2.0**k for k in (-66, -50, 30, 49)],
    jnp.float16: [2.0**-8, 2.0**-4, 2.0**8],
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("num", "dtype", "scale"),
    [(2, dtype, c) for dtype, scales in SCALES.items() for c in scales]
    + [(3, jnp.float32, c) for c in SCALES[jnp.float32]],
)
@pytest.mark.parametrize("conflict", [True, False])
def test_scale_equivariance(num, dtype, scale, variant, conflict):
    grads = random(3, num, conflict, dtype)
    scaled = jax.tree.map(lambda x: x * jnp.asarray(scale, dtype), grads)
    plain, before = combine(grads, variant=variant)
    out, after = combine(scaled, variant=variant)
    for path, x in out.items():
        assert x.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(x, np.float64),
            scale * np.asarray(plain[path], np.float64),
            rtol=2 * float(jnp.finfo(dtype).eps) + 1e-5,
            atol=scale * 1e-5,
        )
    np.testing.assert_allclose(after["weights"], before["weights"], rtol=1e-5)
    np.testing.assert_allclose(after["norms"], scale * before["norms"], rtol=1e-5)
    np.testing.assert_allclose(after["cosine"], before["cosine"], rtol=1e-5)


def test_the_limits_of_float32():
    """The scales that the property names, and one whose square has no exponent left."""
    grads = random(0)
    plain, _ = combine(grads)
    for scale in (1e-20, 1e-30, 1e15, 1e30):
        out, _ = combine(jax.tree.map(lambda x, c=scale: x * np.float32(c), grads))
        np.testing.assert_allclose(flat(out), scale * flat(plain), rtol=1e-5)


@pytest.mark.parametrize("ratio", [1e-8, 1e8])
@pytest.mark.parametrize("seed", range(3))
def test_one_objective_much_longer(seed, ratio):
    rows = rows_of(random(seed)) * np.array([[1.0], [ratio]])
    updates, found = combine(split(rows))
    m, u = np.asarray(rows, np.float32).astype(np.float64)
    share = (u @ u - m @ u) / ((m - u) @ (m - u))
    np.testing.assert_allclose(simplex(found), [share, 1 - share], rtol=1e-4)
    np.testing.assert_allclose(
        np.linalg.norm(flat(updates)), GAMMA * np.linalg.norm(m + u), rtol=1e-4
    )


# --- Property 7: invariances


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(3))
def test_permuting_objectives_permutes_the_weights(seed, variant, num):
    grads = random(seed, num)
    order = np.random.default_rng(seed).permutation(num)
    out, found = combine(grads, variant=variant)
    permuted, after = combine(
        {path: x[order] for path, x in grads.items()}, variant=variant
    )
    np.testing.assert_allclose(
        after["weights"], found["weights"][order], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(flat(permuted), flat(out), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_cutting_a_leaf_changes_nothing(seed, num):
    grads = random(seed, num)
    whole, _ = combine(grads)
    pieces = {"k0": grads["kernel"][:, :1], "k1": grads["kernel"][:, 1:]}
    cut, _ = combine({**pieces, "bias": grads["bias"]})
    kernel = jnp.concatenate([cut["k0"], cut["k1"]])
    np.testing.assert_allclose(kernel, whole["kernel"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(cut["bias"], whole["bias"], rtol=1e-5, atol=1e-5)


# --- Property 8 and 9: stationary points, finished objectives


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("factor", [1.0, 0.5, 3.0, 1e-6, 1e6])
@pytest.mark.parametrize("seed", range(4))
def test_opposite_gradients(seed, factor, variant):
    m = rows_of(random(seed))[0]
    grads = split(np.stack([m, -factor * m]))
    updates, found = combine(grads, variant=variant)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((updates, found)))
    size = np.linalg.norm(flat(updates)) / np.linalg.norm(m) / max(factor, 1)
    assert size <= (0 if variant == "paper" else 1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num", [3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_zero_inside_the_hull(seed, num, variant):
    rows = rows_of(random(seed, num))
    rows[-1] = -np.random.default_rng(seed).uniform(0.2, 1, num - 1) @ rows[:-1]
    updates, found = combine(split(rows), variant=variant)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((updates, found)))
    longest = np.linalg.norm(rows, axis=1).max()
    assert (
        np.linalg.norm(flat(updates)) <= (0 if variant == "paper" else 1e-3) * longest
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("jit", [True, False])
def test_all_gradients_zero(num, variant, jit):
    grads = split(np.zeros((num, 17)))
    tx = mmp.mmpareto(num, variant=variant)
    update = jax.jit(tx.update) if jit else tx.update
    with jax.debug_nans(True):
        updates, state = update(grads, tx.init({p: x[0] for p, x in grads.items()}))
    assert not np.any(flat(updates))
    found = mmp.diagnostics(state)["all"]
    assert all(np.isfinite(x).all() for x in found.values())
    assert not found["conflict"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("conflict", [True, False])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_finished_objective_leaves_the_others_combined(where, conflict, variant):
    """As if it were not there: K = 3 becomes K = 2, K = 2 becomes a single one."""
    for seed in range(8):
        _finished(random(seed, 2, conflict), where, conflict, variant)


def _finished(two, where, conflict, variant):
    three = {path: jnp.insert(x, where, 0.0, axis=0) for path, x in two.items()}
    expected, before = combine(two, variant=variant)
    updates, found = combine(three, variant=variant)
    np.testing.assert_allclose(flat(updates), flat(expected), rtol=1e-4, atol=1e-5)
    assert found["conflict"] == conflict
    np.testing.assert_allclose(found["magnitude"], before["magnitude"], rtol=1e-5)

    one = {path: x.at[where % 2].set(0.0) for path, x in two.items()}
    updates, found = combine(one, variant=variant)
    left = rows_of(two)[1 - where % 2]
    np.testing.assert_allclose(flat(updates), GAMMA * left, rtol=1e-6)
    assert not found["conflict"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(3))
def test_identical_gradients(seed, variant):
    rows = np.repeat(rows_of(random(seed))[:1], 3, axis=0)
    updates, found = combine(split(rows), variant=variant)
    np.testing.assert_allclose(flat(updates), GAMMA * rows.sum(0), rtol=1e-5)
    np.testing.assert_allclose(simplex(found), 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("num", [2, 5])
def test_never_ascends_an_objective(num, double, kind):
    """Typical hard matrices, among them stationary ones where λ amplifies errors."""
    with jax.enable_x64(double):
        _never_ascends(num, jnp.float64 if double else jnp.float32, kind)


def _never_ascends(num, dtype, kind):
    for seed in range(6):
        rows = np.random.default_rng(seed).normal(size=(num, 17))
        if kind == 1:  # strong conflict
            rows -= rows.sum(0) * 0.9 / num
        elif kind == 2:  # stationary
            rows -= rows.mean(0)
        elif kind == 3:  # rank one less
            rows[-1] = rows[0] + rows[1]
        grads = split(rows, dtype)
        rows = rows_of(grads)
        out = flat(combine(grads)[0])
        lengths = np.linalg.norm(rows, axis=1)
        slack = {jnp.float32: 1e-3, jnp.float64: 1e-6}[dtype]
        assert np.all(rows @ out >= -slack * lengths * np.linalg.norm(out))


# --- Property 10 and γ


@pytest.mark.parametrize("variant", VARIANTS)
def test_gamma_is_a_learning_rate_factor_of_the_encoder_under_momentum(variant, x64):
    def losses_fn(params, x):
        features = jnp.tanh(params["encoder"] * x)
        return {
            "joint": jnp.sum((features - params["head"]) ** 2),
            "audio": jnp.sum((features + 1) ** 2),
        }

    params = {"encoder": jnp.array([0.3, -0.2]), "head": jnp.array([1.0, 2.0])}
    groups = mmp.objective_groups(losses_fn, params, 1.0)
    labels = {"encoder": "encoder", "head": "head"}

    def train(gamma, encoder_lr):
        sgd = {
            "encoder": optax.sgd(encoder_lr, momentum=0.9),
            "head": optax.sgd(0.1, momentum=0.9),
        }
        tx = optax.chain(
            mmp.mmpareto(groups, gamma=gamma, variant=variant),
            optax.partition(sgd, labels),
        )

        @jax.jit
        def step(carry, x):
            p, s = carry
            _, grads = mmp.value_and_objective_grads(losses_fn, groups)(p, x)
            updates, s = tx.update(grads, s, p)
            return (optax.apply_updates(p, updates), s), None

        xs = jnp.array([1.0, -0.5, 2.0, 0.3, 1.0])
        return jax.lax.scan(step, (params, tx.init(params)), xs)[0][0]

    ours, control = train(1.5, 0.1), train(1.0, 0.15)
    for path in params:
        np.testing.assert_allclose(ours[path], control[path], rtol=1e-12)


def test_heads_pass_without_gamma():
    groups = mmp.ObjectiveGroups.from_prefixes(
        {"encoder": ("joint", "audio"), "head": ("joint",), "frozen": ()}
    )
    tx = mmp.mmpareto(groups)
    params = {k: jnp.zeros(2) for k in ("encoder", "frozen", "head")}
    grads = {
        "encoder": jnp.array([[1.0, 0.0], [0.0, 1.0]]),
        "frozen": jnp.zeros((0, 2)),
        "head": jnp.array([[0.1, 0.7]]),
    }
    updates, state = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["head"], grads["head"][0])
    np.testing.assert_array_equal(updates["frozen"], np.zeros(2))
    np.testing.assert_array_equal(updates["encoder"], [1.5, 1.5])
    assert set(mmp.diagnostics(state)) == {"encoder"}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("conflict", [True, False])
def test_gamma_is_a_factor(gamma, variant, conflict):
    grads = random(5, 3, conflict)
    unit, _ = combine(grads, 1.0, variant)
    out, found = combine(grads, gamma, variant)
    np.testing.assert_allclose(flat(out), gamma * flat(unit), rtol=1e-5, atol=1e-6)
    assert all(np.isfinite(x).all() for x in found.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_gamma_traced(variant):
    grads = random(0)
    for gamma in (0.5, 2.0):
        tx = mmp.mmpareto(2, gamma=gamma, variant=variant)
        expected, _ = tx.update(grads, tx.init({p: x[0] for p, x in grads.items()}))
        traced, _ = compiled(2, variant)(gamma, grads)
        np.testing.assert_allclose(flat(traced), flat(expected), rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gamma_schedule(variant):
    grads = random(0)
    params = {p: x[0] for p, x in grads.items()}
    schedule = optax.linear_schedule(0.0, 1.5, 3)  # begins with zero
    tx = mmp.mmpareto(2, gamma=schedule, variant=variant)
    state, update = tx.init(params), jax.jit(tx.update)
    unit = flat(combine(grads, 1.0, variant)[0])
    for gamma in (0.0, 0.5, 1.0, 1.5, 1.5):
        updates, state = update(grads, state, params)
        np.testing.assert_allclose(flat(updates), gamma * unit, rtol=1e-5, atol=1e-7)
    assert update._cache_size() == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_gamma_under_inject_hyperparams(variant):
    grads = random(0)
    params = {p: x[0] for p, x in grads.items()}
    factory = optax.inject_hyperparams(mmp.mmpareto, static_args=("objectives",))
    tx = factory(2, gamma=1.5, variant=variant)
    state, update = tx.init(params), jax.jit(tx.update)
    for gamma in (1.5, 0.25):
        state.hyperparams["gamma"] = jnp.asarray(gamma, jnp.float32)
        updates, state = update(grads, state, params)
        expected, _ = combine(grads, gamma, variant)
        np.testing.assert_allclose(flat(updates), flat(expected), rtol=1e-5)
    assert "conflict" in mmp.diagnostics(state)["all"]


def test_inject_hyperparams_needs_static_objectives():
    tx = optax.inject_hyperparams(mmp.mmpareto)(2, gamma=1.5)
    with pytest.raises(TypeError, match=r"static_args=\('objectives',\)"):
        tx.init(jnp.zeros(2))


# --- Arguments


@pytest.mark.parametrize(
    "gamma", [-0.1, float("nan"), float("inf"), -float("inf"), np.nan, jnp.inf]
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_bad_gamma(gamma, variant):
    with pytest.raises(ValueError, match="mmpareto: gamma must be finite and >= 0"):
        mmp.mmpareto(2, gamma=gamma, variant=variant)


@pytest.mark.parametrize("variant", ["Paper", "tensor", None])
def test_unknown_variant(variant):
    with pytest.raises(ValueError, match="`variant` must be 'paper' or 'official'"):
        mmp.mmpareto(2, variant=variant)


@pytest.mark.parametrize("objectives", [0, -1, [], ()])
def test_too_few_objectives(objectives):
    with pytest.raises(ValueError, match="needs at least one objective"):
        mmp.mmpareto(objectives)


@pytest.mark.parametrize("objectives", ["joint", 2.0, True, None, [1, 2]])
def test_objectives_of_another_type(objectives):
    with pytest.raises(TypeError, match="a number, a sequence of names or"):
        mmp.mmpareto(objectives)


def test_a_name_twice():
    with pytest.raises(ValueError, match="objectives must differ"):
        mmp.mmpareto(("joint", "joint"))


def test_a_single_objective_passes():
    tx = mmp.mmpareto(1)
    updates, state = tx.update(jnp.ones((1, 3)), tx.init(jnp.zeros(3)))
    np.testing.assert_array_equal(updates, np.ones(3))
    assert mmp.diagnostics(state) == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_taken_apart(variant):
    """What the ablations leave: the min-norm direction, its own length, a limit."""
    agreed = {"w": jnp.array([[1.0, 0.0], [1.0, 2.0]])}
    opposed = {"w": jnp.array([[1.0, 0.0], [-1.0, 0.1]])}

    def update(grads, **options):
        tx = mmp.mmpareto(2, gamma=1.0, variant=variant, **options)
        return np.asarray(tx.update(grads, tx.init({"w": jnp.zeros(2)}))[0]["w"])

    np.testing.assert_allclose(update(agreed), [2, 2], rtol=1e-6)
    point = [2.0, 0.0]  # twice the shorter, which is the min-norm point itself
    found = update(agreed, conflict_test=False, magnitude=False)
    np.testing.assert_allclose(found, point, atol=1e-6)
    restored = update(agreed, conflict_test=False)
    np.testing.assert_allclose(restored, np.sqrt([8, 0]), atol=1e-6)

    # Twice the foot of the perpendicular on the line from (1, 0) to (-1, 0.1).
    own = 2 * np.array([0.1, 2.0]) * 0.1 / (0.1**2 + 2.0**2)
    np.testing.assert_allclose(update(opposed, magnitude=False), own, rtol=1e-5)
    assert np.linalg.norm(own) < 0.1 * 1.005
    limited = update(opposed, max_magnitude=1.0)
    np.testing.assert_allclose(limited, own, rtol=1e-5)
