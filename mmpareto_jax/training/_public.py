"""What ``import mmpareto_jax.training`` offers, imported on first use."""

from mmpareto_jax.training._config import Config as Config
from mmpareto_jax.training._config import load_config as load_config
from mmpareto_jax.training._report._comparison_figures import (
    draw_comparison as draw_comparison,
)
from mmpareto_jax.training._report._page import write_report as write_report
from mmpareto_jax.training._report._run_figures import draw_figures as draw_figures
from mmpareto_jax.training._report._sweep_figure import draw_sweep as draw_sweep
from mmpareto_jax.training._run._loop import evaluate as evaluate
from mmpareto_jax.training._run._loop import train as train
from mmpareto_jax.training._run._metrics import read_metrics as read_metrics
from mmpareto_jax.training._run._result import Result as Result
from mmpareto_jax.training._run._workdir import read_config as read_config
from mmpareto_jax.training._study._compare import Comparison as Comparison
from mmpareto_jax.training._study._compare import compare as compare
from mmpareto_jax.training._study._compare import read_comparison as read_comparison
from mmpareto_jax.training._study._compare import read_runs as read_runs
from mmpareto_jax.training._study._summary import csv_text as csv_text
from mmpareto_jax.training._study._summary import markdown as markdown
from mmpareto_jax.training._study._summary import mean_ranks as mean_ranks
from mmpareto_jax.training._study._summary import paired as paired
from mmpareto_jax.training._study._summary import (
    relative_improvement as relative_improvement,
)
from mmpareto_jax.training._study._summary import summarize as summarize
from mmpareto_jax.training._study._sweep import SETTINGS as SETTINGS
from mmpareto_jax.training._study._sweep import SweepRow as SweepRow
from mmpareto_jax.training._study._sweep import holm as holm
from mmpareto_jax.training._study._sweep import sweep as sweep
from mmpareto_jax.training._study._sweep import sweep_markdown as sweep_markdown
from mmpareto_jax.training._study._timing import step_times as step_times
from mmpareto_jax.training._tasks._criteria import Measure as Measure
from mmpareto_jax.training._tasks._registry import make_task as make_task
