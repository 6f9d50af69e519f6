"""What ``import mmpareto_jax`` offers, imported on first use: see ``_lazy``."""

from mmpareto_jax import weightings as weightings
from mmpareto_jax._combine.aggregate import aggregate as aggregate
from mmpareto_jax._combine.as_loss import CombinedLoss as CombinedLoss
from mmpareto_jax._combine.as_loss import LossState as LossState
from mmpareto_jax._combine.as_loss import as_loss as as_loss
from mmpareto_jax._combine.combined_grads import CombinedGrads as CombinedGrads
from mmpareto_jax._combine.combined_grads import combined_grads as combined_grads
from mmpareto_jax._combine.feature_level import FeatureLevel as FeatureLevel
from mmpareto_jax._combine.feature_level import feature_level as feature_level
from mmpareto_jax._combine.mmpareto_transformation import mmpareto as mmpareto
from mmpareto_jax._combine.refresh import RefreshState as RefreshState
from mmpareto_jax._combine.scalarize import scalarize as scalarize
from mmpareto_jax._combine.state import AggregateState as AggregateState
from mmpareto_jax._combine.state import diagnostics as diagnostics
from mmpareto_jax._gradients.accumulate import accumulate as accumulate
from mmpareto_jax._gradients.groups import ObjectiveGroups as ObjectiveGroups
from mmpareto_jax._gradients.objectives import objective_groups as objective_groups
from mmpareto_jax._gradients.objectives import (
    value_and_objective_grads as value_and_objective_grads,
)
from mmpareto_jax._gramians.gramian import gramian as gramian
from mmpareto_jax._gramians.min_norm import min_norm_weights as min_norm_weights
from mmpareto_jax._probe.probe import probe as probe
from mmpareto_jax._probe.reading import Reading as Reading
from mmpareto_jax._probe.result import Probe as Probe
from mmpareto_jax._probe.sentence import summarize as summarize
from mmpareto_jax.weightings import Aggregator as Aggregator
from mmpareto_jax.weightings import LossWeighting as LossWeighting
from mmpareto_jax.weightings import Weighting as Weighting
