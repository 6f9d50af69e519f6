"""What ``import mmpareto_jax.training`` offers, imported on first use."""

from mmpareto_jax.training._config import Config as Config
from mmpareto_jax.training._config import load_config as load_config
from mmpareto_jax.training._report.comparison_figures import (
    draw_comparison as draw_comparison,
)
from mmpareto_jax.training._report.page import write_report as write_report
from mmpareto_jax.training._report.run_figures import draw_figures as draw_figures
from mmpareto_jax.training._report.sweep_figure import draw_sweep as draw_sweep
from mmpareto_jax.training._run.callbacks import Callback as Callback
from mmpareto_jax.training._run.callbacks import Start as Start
from mmpareto_jax.training._run.loop import train as train
from mmpareto_jax.training._run.metrics import conflict_share as conflict_share
from mmpareto_jax.training._run.metrics import read_metrics as read_metrics
from mmpareto_jax.training._run.result import Result as Result
from mmpareto_jax.training._run.run import evaluate as evaluate
from mmpareto_jax.training._run.workdir import read_config as read_config
from mmpareto_jax.training._run.writers import JsonLines as JsonLines
from mmpareto_jax.training._run.writers import TensorBoard as TensorBoard
from mmpareto_jax.training._run.writers import WeightsAndBiases as WeightsAndBiases
from mmpareto_jax.training._study.compare import compare as compare
from mmpareto_jax.training._study.comparison import Comparison as Comparison
from mmpareto_jax.training._study.records import read_comparison as read_comparison
from mmpareto_jax.training._study.records import read_runs as read_runs
from mmpareto_jax.training._study.scores import holm as holm
from mmpareto_jax.training._study.scores import mean_ranks as mean_ranks
from mmpareto_jax.training._study.scores import paired as paired
from mmpareto_jax.training._study.scores import (
    relative_improvement as relative_improvement,
)
from mmpareto_jax.training._study.summary import csv_text as csv_text
from mmpareto_jax.training._study.summary import markdown as markdown
from mmpareto_jax.training._study.summary import summarize as summarize
from mmpareto_jax.training._study.sweep import SETTINGS as SETTINGS
from mmpareto_jax.training._study.sweep import SweepRow as SweepRow
from mmpareto_jax.training._study.sweep import sweep as sweep
from mmpareto_jax.training._study.sweep import sweep_markdown as sweep_markdown
from mmpareto_jax.training._study.timing import step_times as step_times
from mmpareto_jax.training._tasks.base import Task as Task
from mmpareto_jax.training._tasks.criteria import Criterion as Criterion
from mmpareto_jax.training._tasks.criteria import Measure as Measure
from mmpareto_jax.training._tasks.modalities import classification as classification
from mmpareto_jax.training._tasks.own import higher_is_better as higher_is_better
from mmpareto_jax.training._tasks.own import lower_is_better as lower_is_better
from mmpareto_jax.training._tasks.own import task as task
from mmpareto_jax.training._tasks.registry import make_task as make_task
