"""The picture exists, shows something, and is the only thing that needs matplotlib."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from mmpareto_jax import problems


@pytest.mark.parametrize("name", ["toy", "three-quadratics", "element-wise"])
def test_the_picture_shows_front_and_paths(tmp_path, name):
    problem = problems.PROBLEMS[name]()
    found = problems.compare_trajectories(problem, ["uniform", "mean"], steps=200)
    path = problems.draw_trajectories(problem, found.trajectories, tmp_path / "a.png")
    picture = imread(path)[..., :3]
    assert picture.shape[1] > 500
    away_from_white = np.abs(picture - 1).sum(-1) > 0.05
    assert 0.02 < away_from_white.mean() < 0.5
    # Colours, not greys alone: the front is orange, the paths run to yellow.
    assert (np.ptp(picture, axis=-1) > 0.3).mean() > 0.001


def test_a_path_that_diverges_is_drawn_as_far_as_it_goes(tmp_path):
    problem = problems.two_quadratics()
    found = problems.compare_trajectories(problem, ["uniform"], steps=3)
    path = found.trajectories["uniform"][0]
    broken = path._replace(params=path.params.copy(), losses=path.losses.copy())
    broken.params[2:] = np.nan
    broken.losses[2:] = np.inf
    file = tmp_path / "b.png"
    problems.draw_trajectories(problem, {"uniform": [broken]}, file)
    assert file.stat().st_size > 10_000


def test_what_it_refuses(tmp_path):
    problem = problems.two_quadratics()
    with pytest.raises(ValueError, match="must name a method"):
        problems.draw_trajectories(problem, {}, tmp_path / "c.png")
    three = problems.element_wise_quadratic(3)
    found = problems.compare_trajectories(three, ["uniform"], steps=2)
    with pytest.raises(ValueError, match="must have 2 parameters, got 3"):
        problems.draw_trajectories(three, found.trajectories, tmp_path / "d.png")


def test_the_problems_do_without_matplotlib():
    code = "import sys, mmpareto_jax.problems; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(problems.__file__).parents[2],
    )
    roots = {name.split(".")[0] for name in done.stdout.split()}
    assert not {"matplotlib", "flax", "sklearn"} & roots
