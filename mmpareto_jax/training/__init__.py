"""Training: configuration, step, loop, checkpoints, metrics, figures."""

from mmpareto_jax.training._config import Config as Config
from mmpareto_jax.training._config import load_config as load_config
from mmpareto_jax.training._figures import draw_figures as draw_figures
from mmpareto_jax.training._loop import Result as Result
from mmpareto_jax.training._loop import evaluate as evaluate
from mmpareto_jax.training._loop import read_config as read_config
from mmpareto_jax.training._loop import train as train
from mmpareto_jax.training._metrics import read_metrics as read_metrics
