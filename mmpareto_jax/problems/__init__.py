"""Small problems whose Pareto front is known, and what methods do on them.

Functions of a few parameters and names of rules come in; trajectories, measures and
pictures go out. It may import the core, which stands below it.
jax and optax are enough, but ``draw_trajectories`` needs matplotlib when it is called.
"""

from mmpareto_jax.problems._comparison import METHODS as METHODS
from mmpareto_jax.problems._comparison import PROBLEMS as PROBLEMS
from mmpareto_jax.problems._comparison import Comparison as Comparison
from mmpareto_jax.problems._comparison import Limit as Limit
from mmpareto_jax.problems._comparison import combination_of as combination_of
from mmpareto_jax.problems._comparison import (
    compare_trajectories as compare_trajectories,
)
from mmpareto_jax.problems._drawing import draw_trajectories as draw_trajectories
from mmpareto_jax.problems._measures import distance_to_front as distance_to_front
from mmpareto_jax.problems._measures import hypervolume as hypervolume
from mmpareto_jax.problems._measures import (
    inverted_distance_to_front as inverted_distance_to_front,
)
from mmpareto_jax.problems._measures import non_dominated as non_dominated
from mmpareto_jax.problems._measures import pareto_stationarity as pareto_stationarity
from mmpareto_jax.problems._problem import Front as Front
from mmpareto_jax.problems._problem import Problem as Problem
from mmpareto_jax.problems._quadratics import convex_quadratics as convex_quadratics
from mmpareto_jax.problems._quadratics import (
    element_wise_quadratic as element_wise_quadratic,
)
from mmpareto_jax.problems._quadratics import three_quadratics as three_quadratics
from mmpareto_jax.problems._quadratics import two_quadratics as two_quadratics
from mmpareto_jax.problems._toy import toy as toy
from mmpareto_jax.problems._trajectory import Trajectory as Trajectory
from mmpareto_jax.problems._trajectory import trajectories as trajectories
from mmpareto_jax.problems._trajectory import trajectory as trajectory
