"""What a rule is given for each objective may be by name, in every group its own."""

import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

W = mmp.weightings
GROUPS = mmp.ObjectiveGroups.from_prefixes(
    {"a": ("audio", "joint"), "v": ("joint", "visual"), "head": ("joint",)}
)
ROWS = {
    "a": jnp.array([[1.0, -2.0, 0.5], [0.5, 1.0, 3.0]]),
    "v": jnp.array([[2.0, 0.1, 0.5], [-1.0, 1.0, 1.0]]),
    "head": jnp.array([[1.0, 1.0, 1.0]]),
}
PARAMS = {k: jnp.zeros(3) for k in ROWS}
LOSSES = {"audio": 1.0, "joint": 2.0, "visual": 3.0}
PREFERENCE = {"visual": 3.0, "joint": 2.0, "audio": 1.0}
# By position: in each group.
POSITIONS = {"a": [1.0, 2.0], "v": [2.0, 3.0]}


def update(rule, groups=GROUPS, rows=None, losses=LOSSES):
    tx = mmp.aggregate(rule, groups)
    rows = ROWS if rows is None else rows
    state = tx.init({k: PARAMS[k] for k in rows})
    return tx.update(rows, state, losses=losses)[0]


@pytest.mark.parametrize(
    "rule", [W.config, W.upgrad, W.dualproj, W.aligned_mtl, W.sdmgrad, W.constant]
)
def test_a_preference_by_name_is_that_by_position_in_every_group(rule):
    argument = "weights" if rule is W.constant else "preference"
    found = update(rule(**{argument: PREFERENCE}))
    for group, vector in POSITIONS.items():
        alone = mmp.ObjectiveGroups.from_prefixes({group: GROUPS.groups[group]})
        losses = {k: LOSSES[k] for k in GROUPS.groups[group]}
        expected = update(
            rule(**{argument: vector}), alone, {group: ROWS[group]}, losses
        )
        np.testing.assert_allclose(found[group], expected[group], rtol=1e-6)
    np.testing.assert_array_equal(found["head"], ROWS["head"][0])


@pytest.mark.parametrize(
    ("named", "by_position"),
    [
        (W.stch(preference=PREFERENCE), W.stch(preference=[1.0, 2.0, 3.0])),
        (W.stch(ideal=PREFERENCE), W.stch(ideal=[1.0, 2.0, 3.0])),
        (
            W.famo(minimum={"joint": 0.3, "audio": 0.1, "visual": 0.2}),
            W.famo(minimum=[0.1, 0.3, 0.2]),
        ),
    ],
)
def test_a_rule_of_losses_has_the_order_of_all_objectives(named, by_position):
    for key, x in update(by_position).items():
        np.testing.assert_array_equal(update(named)[key], x)


def test_in_scalarize_too():
    def losses(w):  # an array would have this order
        return {"b": jnp.sum(w**2), "a": jnp.sum((w - 2) ** 2)}

    found = []
    for preference in ({"b": 0.9, "a": 0.1}, [0.1, 0.9], [0.9, 0.1]):
        rule = W.stch(preference=preference)
        loss = mmp.scalarize(rule, losses)
        found.append(float(loss(jnp.ones(2) / 2, rule.init(2))[0]))
    assert found[0] == found[2]
    assert found[1] != found[2]


def test_a_leak_by_name():
    for key, x in update(
        W.graddrop({"joint": 1.0, "audio": 0.0, "visual": 0.0})
    ).items():
        if key != "head":
            row = GROUPS.groups[key].index("joint")
            kept = [
                np.isclose(v, ROWS[key][row, i]) or np.isclose(v, ROWS[key][:, i].sum())
                for i, v in enumerate(x)
            ]
            assert all(kept)


def test_a_target_by_name():
    found = update(W.metabalance(relax=1.0, target="joint"))
    for group, rows in ROWS.items():
        if group != "head":
            target = GROUPS.groups[group].index("joint")
            norms = np.linalg.norm(rows, axis=1)
            expected = (norms[target] / norms) @ rows
            np.testing.assert_allclose(found[group], expected, rtol=1e-5)


def test_weights_of_others_are_one_number():
    found = update(W.constant({"joint": 1.0}, others=0.0))
    np.testing.assert_array_equal(found["a"], ROWS["a"][1])
    np.testing.assert_array_equal(found["v"], ROWS["v"][0])


def test_a_running_mean_of_a_rule_by_name():
    smooth = W.smoothed(W.constant(PREFERENCE), 0.5)
    np.testing.assert_allclose(
        update(smooth)["a"], update(W.constant(PREFERENCE))["a"], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: W.config({"joint": 1.0}), "preference has none for the objective 'a"),
        (
            lambda: W.config({**PREFERENCE, "jiont": 1.0}),
            "preference names 'jiont', which is no objective; they are audio, joint, v",
        ),
        (lambda: W.constant({"joint": 1.0}), "weights has none for the objective 'aud"),
        (
            lambda: W.constant({"jiont": 1.0}, others=0.0),
            "weights names 'jiont', which is no objective",
        ),
        (lambda: W.metabalance(target="jiont"), "target names 'jiont', which is no"),
        (
            lambda: W.metabalance(target="audio"),
            "target is 'audio', but a group has the objectives joint, visual alone",
        ),
        (lambda: W.constant({}), "weights must name an objective"),
        (lambda: W.constant([1.0, 2.0], others=0.0), "others needs weights by name"),
    ],
)
def test_a_name_that_is_wrong_is_told_when_the_groups_are_known(make, words):
    with pytest.raises(ValueError, match=words):
        mmp.aggregate(make(), GROUPS)


def test_without_names_a_rule_by_name_says_where_it_belongs():
    rule = W.config(PREFERENCE)
    with pytest.raises(ValueError, match=r"config: preference is by name.*aggregate"):
        rule.weights(jnp.eye(3), rule.init(3))
