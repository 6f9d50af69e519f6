"""Methods against modality imbalance that the literature compares with.

Those that change gradients are Optax transformations, after the combination and before
the optimiser; those that change the loss are functions of the model's outputs; those
that act between epochs are functions of a state.
"""

from mmpareto_jax.training._methods._baselines.blending import Blending as Blending
from mmpareto_jax.training._methods._baselines.blending import blend as blend
from mmpareto_jax.training._methods._baselines.blending import (
    no_blending as no_blending,
)
from mmpareto_jax.training._methods._baselines.gradient_modulation import agm as agm
from mmpareto_jax.training._methods._baselines.gradient_modulation import ogm as ogm
from mmpareto_jax.training._methods._baselines.greedy import Greedy as Greedy
from mmpareto_jax.training._methods._baselines.greedy import (
    not_greedy_yet as not_greedy_yet,
)
from mmpareto_jax.training._methods._baselines.greedy import watch as watch
from mmpareto_jax.training._methods._baselines.prototypes import (
    class_means as class_means,
)
from mmpareto_jax.training._methods._baselines.prototypes import (
    prototype_loss as prototype_loss,
)
from mmpareto_jax.training._methods._baselines.relearning import purity as purity
from mmpareto_jax.training._methods._baselines.relearning import (
    relearning_strength as relearning_strength,
)
from mmpareto_jax.training._methods._baselines.relearning import (
    soft_reset as soft_reset,
)
