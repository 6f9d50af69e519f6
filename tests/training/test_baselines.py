"""The imbalance baselines against values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpareto_jax.training import baselines

MODALITIES = ("audio", "visual")
GRADS = {
    "audio_encoder": jnp.array([[1.0, 2.0], [3.0, 5.0]]),
    "head": jnp.array([7.0]),
    "visual_encoder": jnp.array([[1.0, -1.0]]),
}


def labels(params):
    del params
    return {"audio_encoder": "audio", "head": None, "visual_encoder": "visual"}


def scores(audio, visual):
    return {"audio": jnp.float32(audio), "visual": jnp.float32(visual)}


def update(tx, state, **found):
    return jax.jit(tx.update)(GRADS, state, scores=scores(**found))


# --- OGM


@pytest.mark.parametrize(
    ("audio", "visual", "expected"),
    [
        (0.6, 0.2, (1 - np.tanh(0.5 * 3), 1)),
        (0.1, 0.4, (1, 1 - np.tanh(0.5 * 4))),
        (0.3, 0.3, (1, 1)),
    ],
)
def test_ogm_slows_the_modality_that_leads(audio, visual, expected):
    tx = baselines.ogm(labels, MODALITIES, alpha=0.5)
    found, state = update(tx, tx.init(GRADS), audio=audio, visual=visual)
    for name, factor in zip(MODALITIES, expected, strict=True):
        key = f"{name}_encoder"
        np.testing.assert_allclose(found[key], factor * GRADS[key], rtol=1e-6)
        np.testing.assert_allclose(state.coefficients[name], factor, rtol=1e-6)
    np.testing.assert_array_equal(found["head"], GRADS["head"])


def test_ogm_ends():
    tx = baselines.ogm(labels, MODALITIES, noise=True, until=1)
    first, state = update(tx, tx.init(GRADS), audio=0.6, visual=0.2)
    second, _ = update(tx, state, audio=0.6, visual=0.2)
    assert np.any(first["audio_encoder"] != GRADS["audio_encoder"])
    for key, grad in GRADS.items():
        np.testing.assert_array_equal(second[key], grad)


def test_ogm_of_three_modalities_compares_with_the_mean_of_the_others():
    tx = baselines.ogm(lambda p: {"c": "c"}, ("a", "b", "c"), alpha=1.0)
    grads = {"c": jnp.ones(2)}
    found, _ = tx.update(
        grads, tx.init(grads), scores={"a": 0.1, "b": 0.3, "c": jnp.float32(0.5)}
    )
    np.testing.assert_allclose(found["c"], 1 - np.tanh(2.5), rtol=1e-5)


def test_ogm_ge_adds_noise_of_the_gradients_deviation():
    tx = baselines.ogm(lambda p: {"x": "audio"}, MODALITIES, alpha=0.5, noise=True)
    grads = {"x": 3.0 + jnp.asarray(np.random.default_rng(0).normal(size=20_000))}
    state = tx.init(grads)
    found, state = tx.update(grads, state, scores=scores(0.6, 0.2))
    noise = found["x"] - (1 - np.tanh(1.5)) * grads["x"]
    np.testing.assert_allclose(noise.mean(), 0, atol=0.03)
    np.testing.assert_allclose(noise.std(), 1, rtol=0.03)
    again, _ = tx.update(grads, state, scores=scores(0.6, 0.2))
    assert np.any(again["x"] != found["x"])


# --- AGM


def test_agm_three_steps_in_numpy():
    alpha = 0.7
    tx = baselines.agm(labels, MODALITIES, alpha=alpha)
    state, means = tx.init(GRADS), np.zeros(2)
    for step, s in enumerate(np.array([[1.0, 2.0], [0.5, 1.9], [0.2, 1.8]])):
        ratio, goal = np.exp(s[::-1] - s), np.exp(means[::-1] - means)
        expected = np.exp(alpha * np.minimum(goal - ratio, 10))
        found, state = update(tx, state, audio=s[0], visual=s[1])
        for name, factor in zip(MODALITIES, expected, strict=True):
            key = f"{name}_encoder"
            np.testing.assert_allclose(found[key], factor * GRADS[key], rtol=1e-5)
        np.testing.assert_array_equal(found["head"], GRADS["head"])
        means = means * step / (step + 1) + s / (step + 1)
    # Audio is better than it was on average: it is slowed, visual is not.
    assert expected[0] < 1 < expected[1]


# --- PMR

PROTOTYPES = {
    "audio": jnp.array([[0.0], [2.0]]),
    "visual": jnp.array([[0.0, 0.0], [1.0, 0.0]]),
}


def test_pmr_pulls_the_modality_that_lags():
    features = {"audio": jnp.array([[0.5]]), "visual": jnp.array([[0.4, 1.0]])}
    label = jnp.array([0])

    def loss(visual, alpha, mu):
        given = features | {"visual": visual}
        return baselines.prototype_loss(given, label, PROTOTYPES, alpha=alpha, mu=mu)

    # Distances: audio 0.5 and 1.5, visual √1.16 and √1.36; the first class is right.
    near, far = np.sqrt(1.16), np.sqrt(1.36)
    audio, visual = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(near - far))
    behind = audio / visual - 1
    assert 0 < behind < 1
    found = loss(features["visual"], 2.0, 0.0)
    np.testing.assert_allclose(found, -2 * behind * np.log(visual), rtol=1e-5)
    # The best modality's entropy, and only that.
    entropy = -audio * np.log(audio) - (1 - audio) * np.log(1 - audio)
    found = loss(features["visual"], 0.0, 0.5)
    np.testing.assert_allclose(found, -0.5 * behind * entropy, rtol=1e-5)

    # The coefficient is a constant for the gradient: d/dx of log(1 + e^(near - far)).
    slope = np.asarray(jax.grad(loss)(features["visual"], 1.0, 0.5))
    expected = (
        behind
        * (1 - visual)
        * (np.array([0.4, 1.0]) / near - np.array([-0.6, 1.0]) / far)
    )
    np.testing.assert_allclose(slope, [expected], rtol=1e-5, atol=1e-6)


def test_pmr_is_bounded_and_has_a_gradient_at_a_prototype():
    # Audio is sure and visual is wrong: s is 1 and almost 0, the coefficient is 1.
    features = {"audio": jnp.zeros((1, 1)), "visual": jnp.array([[1.0, 0.0]])}
    prototypes = {
        "audio": jnp.array([[0.0], [90.0]]),
        "visual": jnp.array([[91.0, 0.0], [1.0, 0.0]]),
    }

    def loss(features):
        label = jnp.array([0])
        return baselines.prototype_loss(features, label, prototypes, alpha=1.0, mu=0.0)

    value, slope = jax.value_and_grad(loss)(features)
    np.testing.assert_allclose(value, 90.0, rtol=1e-5)
    np.testing.assert_allclose(slope["visual"], [[-1.0, 0.0]], atol=1e-5)
    assert np.all(slope["audio"] == 0)


def test_class_means():
    features = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]])
    found = baselines.class_means(features, np.array([2, 2, 0]), 4)
    np.testing.assert_allclose(found, [[5, 5], [0, 0], [2, 1], [0, 0]])


# --- Greedy


def test_greedy_watches_and_rebalances():
    memory, cares = baselines.not_greedy_yet(), []
    step = jax.jit(
        lambda *x: baselines.watch(*x, epsilon=0.1, window=2, start=3),
    )
    # The second modality's exchange learns twice as fast, relative to its encoder.
    slow = jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0])
    for _ in range(7):
        memory = step(memory, *slow)
        cares.append((int(memory.care), int(memory.left)))
    # From the fourth step on: two steps of rebalancing, then one that is watched.
    assert cares == [(-1, 0)] * 3 + [(1, 2), (1, 1), (-1, 0), (1, 2)]
    # Steps 1 to 4 and 7 count; 5 and 6 rebalanced.
    np.testing.assert_allclose(memory.exchange, [5, 20])
    np.testing.assert_allclose(memory.branch, [5, 10])
    # Enough of the opposite brings the speeds together, and then turns the choice.
    memory = memory._replace(left=jnp.int32(0), exchange=jnp.array([5.0, 9.0]))
    even = step(memory, jnp.array([0.0, 1.0]), jnp.zeros(2))
    assert even.care == -1
    other = step(memory, jnp.array([45.0, 1.0]), jnp.zeros(2))
    assert (other.care, other.left) == (0, 2)


# --- G-Blending


def test_blending():
    memory = baselines.no_blending(("joint", "audio", "visual"))

    def at(joint, audio, visual):
        return {"joint": joint, "audio": audio, "visual": visual}

    memory = baselines.blend(memory, at(1.0, 1.0, 1.0), at(1.2, 1.5, 1.1))
    assert all(x == 1 for x in memory.weights.values())
    after = baselines.blend(memory, at(0.5, 0.2, 0.6), at(1.0, 1.3, 1.2))
    # Gains 0.2, 0.2, -0.1; overfitting 0.3, 0.6, ...: 0.2 / 0.09 and 0.2 / 0.36.
    found = [float(after.weights[k]) for k in ("joint", "audio", "visual")]
    np.testing.assert_allclose(found, [3 * 0.8, 3 * 0.2, 0], rtol=1e-4)
    worse = baselines.blend(after, at(0.1, 0.1, 0.1), at(9.0, 9.0, 9.0))
    assert worse.weights == after.weights
    assert worse.validation["joint"] == 9


# --- Diagnosing & Re-learning


def test_purity():
    rng = np.random.default_rng(0)
    label = np.repeat([3, 5, 9], 50)
    clear = rng.normal(size=(150, 2)) + 20 * label[:, None]
    assert baselines.purity(clear, label) == 1
    assert baselines.purity(rng.normal(size=(150, 2)), label) < 0.6


def test_relearning():
    np.testing.assert_allclose(
        baselines.relearning_strength(0.9, 0.5, 2.0), np.tanh(0.8)
    )
    assert baselines.relearning_strength(0.5, 0.5, 2.0) == 0
    moved = baselines.soft_reset(jnp.array([1.0, 3.0]), jnp.array([5.0, 3.0]), 0.25)
    np.testing.assert_allclose(moved, [2, 3])
