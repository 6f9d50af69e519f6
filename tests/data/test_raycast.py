import numpy as np
import pytest

from mmpareto_jax.data._raycast import (
    hit_box,
    hit_cylinder,
    hit_room,
    hit_sphere,
    pinhole_rays,
    turn,
)

EYE = np.array([0.0, 1.5, 0.0])
BEHIND = np.array([0.0, 0.0, 1.0])


def shapes():
    """Each with a function that is zero on its surface and negative inside."""
    centre, half = np.array([0.2, 0.6, -3.0]), np.array([0.5, 0.6, 0.3])

    def box(p):
        local = (p - centre) @ turn(0.4)
        return (np.abs(local) - half).max(axis=-1)

    def sphere(p):
        return np.linalg.norm(p - centre, axis=-1) - 0.5

    def cylinder(p):
        around = np.hypot(*(p - centre)[..., [0, 2]].T).T - 0.4
        return np.maximum(around, np.abs(p - centre)[..., 1] - 0.6)

    return {
        "box": (box, lambda rays: hit_box(EYE, rays, centre, half, 0.4)),
        "sphere": (sphere, lambda rays: hit_sphere(EYE, rays, centre, 0.5)),
        "cylinder": (cylinder, lambda rays: hit_cylinder(EYE, rays, centre, 0.4, 0.6)),
    }


@pytest.mark.parametrize("name", shapes())
@pytest.mark.parametrize("yaw", [0.0, 0.2])
def test_a_hit_is_the_first_point_of_the_surface(name, yaw):
    """Against marching along the rays, which knows nothing of roots."""
    inside, hit = shapes()[name]
    rays = pinhole_rays(41, 1.0) @ turn(yaw, -0.25).T
    t, normal = hit(rays)
    steps = np.linspace(0, 5, 2501)
    marched = inside(EYE + steps[:, None, None] * rays) < 0
    entered = np.where(marched.any(axis=0), steps[marched.argmax(axis=0)], np.inf)
    # A ray that grazes an edge can be inside for less than a step.
    both = np.isfinite(t) & np.isfinite(entered)
    assert (np.isfinite(t) != np.isfinite(entered)).sum() <= 5
    assert both.sum() > 50
    np.testing.assert_allclose(t[both], entered[both], atol=2.1e-3)
    found = np.isfinite(t)
    points = EYE + t[found, None] * rays[found]
    np.testing.assert_allclose(inside(points), 0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(normal[found], axis=1), 1)
    assert ((normal[found] * rays[found]).sum(axis=1) < 1e-9).all()
    # Outwards: along the normal the function grows as fast as the distance.
    growth = inside(points + 1e-6 * normal[found]) / 1e-6
    np.testing.assert_allclose(growth, 1, atol=1e-3)
    assert np.isfinite(normal).all()


@pytest.mark.parametrize("name", shapes())
def test_what_is_behind_is_not_hit(name):
    rays = pinhole_rays(9, 1.0) * [1, 1, -1]
    assert np.isinf(shapes()[name][1](rays)[0]).all()


def test_a_room_is_hit_everywhere_from_inside():
    low, high = np.array([-2.0, 0.0, -4.0]), np.array([3.0, 2.5, 1.0])
    rays = np.random.default_rng(0).normal(size=(500, 3))
    t, normal = hit_room(EYE, rays, low, high)
    at = EYE + t[:, None] * rays
    on = np.isclose(at, low) | np.isclose(at, high)
    assert on.any(axis=1).all()
    assert ((at > low - 1e-9) & (at < high + 1e-9)).all()
    np.testing.assert_array_equal(np.abs(normal) == 1, on)
    assert ((normal * rays).sum(axis=1) < 0).all()
    # Along an axis, where the slopes of the others are zero.
    t, normal = hit_room(EYE, np.eye(3), low, high)
    np.testing.assert_allclose(t, (3.0, 1.0, 1.0))
    np.testing.assert_array_equal(normal, -np.eye(3))


def test_rays_go_through_the_centres_of_pixels():
    rays = pinhole_rays(4, np.pi / 2).reshape(4, 4, 3)
    np.testing.assert_allclose(rays[0, :, 0], (-0.75, -0.25, 0.25, 0.75))
    np.testing.assert_allclose(rays[:, 0, 1], (0.75, 0.25, -0.25, -0.75))
    assert (rays[..., 2] == -1).all()


def test_turns_are_rotations_in_the_named_directions():
    for angles in ((0.3, 0.0, 0.0), (0.0, 0.3, 0.0), (0.2, -0.4, 0.1)):
        matrix = turn(*angles)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)
    assert (turn(0.3) @ -BEHIND)[0] < 0  # left
    assert (turn(0.0, 0.3) @ -BEHIND)[1] > 0  # up
    assert (turn(0.0, 0.0, 0.3) @ [1, 0, 0])[1] > 0
