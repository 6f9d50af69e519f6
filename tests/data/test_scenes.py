import numpy as np
import pytest

from mmpareto_jax.data import SCENE_CLASSES, load_scenes

SPLITS = ("train", "validation", "test")
SPHERE, CYLINDER = SCENE_CLASSES.index("sphere"), SCENE_CLASSES.index("cylinder")


@pytest.fixture(scope="module")
def scenes():
    return load_scenes("train", num_examples=60, size=48)


@pytest.fixture(scope="module")
def points(scenes):
    """Where the pixels are, from the depth alone, in the frame of the normals."""
    size = scenes.image.shape[1]
    step = (np.arange(size) + 0.5 - size / 2) / scenes.focal
    x, y = np.meshgrid(step, -step)
    rays = np.stack([x, y, np.full_like(x, -1)], axis=-1)
    return scenes.depth * rays


def solids(scenes, kind, fewest):
    """The pixels of every solid of a class that have depth."""
    for i, instance in enumerate(scenes.instance):
        for k in range(3, instance.max() + 1):
            own = instance == k
            seen = own & (scenes.depth[i, ..., 0] > 0)
            if seen.sum() >= fewest and (scenes.segmentation[i][own] == kind).any():
                yield i, k, seen


def test_shapes_and_types():
    for split, size in (("train", 2000), ("validation", 400), ("test", 800)):
        # The defaults at the least resolution: shapes do not need more.
        data = load_scenes(split, size=8)
        arrays = data.arrays
        assert list(arrays) == ["image", "segmentation", "depth", "normal"]
        assert arrays["image"].shape == arrays["normal"].shape == (size, 8, 8, 3)
        assert arrays["segmentation"].shape == (size, 8, 8)
        assert arrays["depth"].shape == (size, 8, 8, 1)
        assert arrays["segmentation"].dtype == np.int32
        for name in ("image", "depth", "normal"):
            assert arrays[name].dtype == np.float32
            assert np.isfinite(arrays[name]).all()
        flat = arrays["image"].reshape(size, -1)
        np.testing.assert_allclose(flat.mean(axis=1), 0, atol=1e-4)
        np.testing.assert_allclose(flat.std(axis=1), 1, atol=1e-4)


def test_all_classes_occur_and_labels_are_those_of_the_surface(scenes):
    labels = scenes.segmentation
    share = np.array([(labels == k).mean() for k in range(-1, len(SCENE_CLASSES))])
    assert share.sum() == pytest.approx(1)
    assert share[1:].min() > 0.02
    room = scenes.instance < 3
    np.testing.assert_array_equal(
        labels[room & (labels >= 0)], scenes.instance[room & (labels >= 0)]
    )
    for i, instance in enumerate(scenes.instance):
        for k in range(3, instance.max() + 1):
            found = set(labels[i][instance == k]) - {-1}
            assert len(found) <= 1
            assert min(found, default=3) >= 3


def test_gaps_are_few_and_of_depth_and_normal_alike(scenes):
    unlabelled, invalid = scenes.segmentation < 0, scenes.depth[..., 0] == 0
    for gaps in (unlabelled, invalid):
        assert 0.005 < gaps.mean() < 0.08
    assert (unlabelled != invalid).any()
    length = np.linalg.norm(scenes.normal, axis=-1)
    np.testing.assert_array_equal(length == 0, invalid)
    np.testing.assert_allclose(length[~invalid], 1, atol=1e-6)
    assert scenes.depth[~invalid].min() > 0.5
    assert scenes.depth.max() < 12


def test_surfaces_face_the_camera(scenes, points):
    valid = scenes.depth[..., 0] > 0
    assert (scenes.normal * points).sum(axis=-1)[valid].max() < 1e-6


def test_neighbours_of_one_normal_lie_in_its_plane(scenes, points):
    count = 0
    for axis in (1, 2):
        ahead = [np.delete(x, 0, axis) for x in (points, scenes.normal)]
        here = [np.delete(x, -1, axis) for x in (points, scenes.normal)]
        surface = np.diff(scenes.instance, axis=axis) == 0
        same = (np.abs(ahead[1] - here[1]).max(axis=-1) < 1e-6) & surface
        same &= np.abs(here[1]).max(axis=-1) > 0
        off = ((ahead[0] - here[0]) * here[1]).sum(axis=-1)[same]
        np.testing.assert_allclose(off, 0, atol=1e-5)
        count += same.sum()
    assert count > scenes.instance.size  # most of the pixels, in both directions


def test_floor_walls_and_ceiling_are_at_right_angles(scenes):
    seen = 0
    for instance, normal in zip(scenes.instance, scenes.normal, strict=True):
        valid = np.abs(normal).max(axis=-1) > 0
        floor, wall, ceiling = (normal[(instance == k) & valid] for k in range(3))
        if not len(floor):
            continue
        up = floor[0]
        assert up[1] > 0.9
        np.testing.assert_allclose(floor @ up, 1, atol=1e-5)
        np.testing.assert_allclose(ceiling @ up, -1, atol=1e-5)
        np.testing.assert_allclose(wall @ up, 0, atol=1e-5)
        seen += len(ceiling) > 0
    assert seen > 10


def test_spheres_are_round_and_so_is_their_outline(scenes, points):
    size = scenes.image.shape[1]
    step = (np.arange(size) + 0.5 - size / 2) / scenes.focal
    x, y = np.meshgrid(step, -step)
    rays = np.stack([x, y, np.full_like(x, -1)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    count = 0
    for i, k, seen in solids(scenes, SPHERE, 30):
        at, normal = points[i][seen], scenes.normal[i][seen]
        # at = centre + radius * normal, by least squares.
        spread = normal - normal.mean(axis=0)
        radius = (spread * at).sum() / (spread**2).sum()
        centre = (at - radius * normal).mean(axis=0)
        np.testing.assert_allclose(at, centre + radius * normal, atol=1e-4)
        assert 0.2 <= radius <= 0.5
        # The rays that pass the centre closer than the radius, unless something nearer
        # is in the way.
        passes = np.linalg.norm(centre - (rays @ centre)[..., None] * rays, axis=-1)
        own = scenes.instance[i] == k
        assert passes[own].max() < radius + 1e-4
        hidden = (passes < radius - 1e-4) & ~own & (scenes.depth[i, ..., 0] > 0)
        assert (scenes.depth[i, ..., 0][hidden] < np.linalg.norm(centre)).all()
        count += 1
    assert count > 10


def test_cylinders_are_upright_and_round(scenes, points):
    count = 0
    for i, _, seen in solids(scenes, CYLINDER, 30):
        floor = (scenes.instance[i] == 0) & (scenes.depth[i, ..., 0] > 0)
        if not floor.any():
            continue
        up = scenes.normal[i][floor][0]
        at, normal = points[i][seen], scenes.normal[i][seen]
        top = normal @ up > 0.5
        np.testing.assert_allclose(normal[top] @ up, 1, atol=1e-5)
        np.testing.assert_allclose(normal[~top] @ up, 0, atol=1e-5)
        if (~top).sum() < 20:
            continue
        flat = at[~top] - (at[~top] @ up)[:, None] * up
        spread = normal[~top] - normal[~top].mean(axis=0)
        radius = (spread * flat).sum() / (spread**2).sum()
        centre = (flat - radius * normal[~top]).mean(axis=0)
        np.testing.assert_allclose(flat, centre + radius * normal[~top], atol=1e-4)
        assert 0.2 <= radius <= 0.5
        count += 1
    assert count > 10


def test_no_class_can_be_read_off_a_colour():
    train, test = (
        load_scenes("train", num_examples=300),
        load_scenes("test", num_examples=150),
    )
    from sklearn.tree import DecisionTreeClassifier

    def pixels(data):
        known = data.segmentation >= 0
        return data.image[known], data.segmentation[known]

    colour = DecisionTreeClassifier(min_samples_leaf=50, random_state=0)
    x, y = pixels(train)
    found = colour.fit(x, y).score(*pixels(test))
    most = np.bincount(pixels(test)[1]).max() / len(pixels(test)[1])
    assert found < most + 0.12


def test_a_smaller_load_is_a_prefix_and_nothing_else_repeats():
    data = {split: load_scenes(split, num_examples=20) for split in SPLITS}
    for split, whole in data.items():
        part = load_scenes(split, num_examples=7)
        for name, array in part.arrays.items():
            np.testing.assert_array_equal(array, whole.arrays[name][:7])
    other = load_scenes("train", num_examples=20, seed=1)
    every = [*data.values(), other]
    distinct = {x.tobytes() for scenes in every for x in scenes.depth}
    assert len(distinct) == 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, r"split: expected one of .* got 'val'"),
        ({"num_examples": 0}, "num_examples: expected at least 1, got 0"),
        ({"size": 7}, "size: expected at least 8 pixels, got 7"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=f"load_scenes: {message}"):
        load_scenes(**{"split": "test"} | options)
