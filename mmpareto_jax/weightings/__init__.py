"""Weightings: rules from the Gramian of a group to the weights of its objectives."""

from mmpareto_jax.weightings._mean import mean as mean
from mmpareto_jax.weightings._mgda import mgda as mgda
from mmpareto_jax.weightings._mmpareto import mmpareto as mmpareto
from mmpareto_jax.weightings._uniform import uniform as uniform
from mmpareto_jax.weightings._weighting import Aggregator as Aggregator
from mmpareto_jax.weightings._weighting import LossWeighting as LossWeighting
from mmpareto_jax.weightings._weighting import Weighting as Weighting
