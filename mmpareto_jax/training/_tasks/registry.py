"""The task that a config names."""

from __future__ import annotations

import importlib
import inspect
import operator
from collections.abc import Callable
from typing import Any

from mmpareto_jax.training._choices import MULTI_TASK, is_own
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.several_modalities import (
    av_digits,
    prepared_modalities,
)
from mmpareto_jax.training._tasks.several_tasks import (
    digit_tasks,
    multi_digits,
    prepared_tasks,
    scenes,
)

# Those whose data are in the package.
EMBEDDED: dict[str, Callable[[Config], Task]] = {
    "av-digits": av_digits,
    "multi-digits": multi_digits,
    "digit-tasks": digit_tasks,
    "scenes": scenes,
}


# Parameters that take what there is.
_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def make_task(config: Config) -> Task:
    """The task that a config names.

    Args:
      config: of a run: its task, data and model; and its method, which may ask for a
        fusion or a sharing of its own. A task ``module:function`` is what that function
        returns; it gets the config where it needs an argument or has one of that name.

    Returns:
      The task: a function that makes the model, the data of the splits ("train",
      "validation", "test"), and of every objective the loss and the measures, all of
      them in ``measures``, the main one first. No model is made yet.

    Raises:
      TypeError: an argument is of another type.
      ValueError: its data are not there, or do not fit; or its module or function is
        not there, or returns no task.

    Example:
      >>> from mmpareto_jax.training import Config, make_task
      >>> [m.name for m in make_task(Config(train_examples=32)).measures]
      ['accuracy/joint', 'accuracy/audio', 'accuracy/visual']
    """
    given: Any = config
    if not isinstance(given, Config):
        kind = type(given).__name__
        raise TypeError(f"make_task: expected a Config, got {kind}")
    if is_own(config.task):
        return _referred(config)
    several = config.task in MULTI_TASK
    prepared = prepared_tasks if several else prepared_modalities
    return EMBEDDED.get(config.task, prepared)(config)


def _referred(config: Config) -> Task:
    module, _, name = config.task.partition(":")
    if not module:
        raise ValueError(
            f"task {name}: was made in Python, and has to be given as task=, or be "
            "named as module:function"
        )
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"task {config.task}: expected module:function")
    found = _imported(config.task, module)
    try:
        function = operator.attrgetter(name)(found)
    except AttributeError:
        function = None
    if not callable(function):
        raise ValueError(f"task {config.task}: {module} has no function {name!r}")
    try:
        made = _made(function, config)
    except (ValueError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise _failed(config.task, f"{name} fails", error) from error
    if not isinstance(made, Task):
        raise ValueError(
            f"task {config.task}: expected a training.Task to be returned, got "
            f"{type(made).__name__}"
        )
    return made


def _imported(task: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (module + ".").startswith(missing + "."):
            raise ValueError(
                f"task {task}: there is no module {module}, here or installed"
            ) from None
        raise _failed(task, f"{module} cannot be imported", error) from error


def _failed(task: str, what: str, error: BaseException) -> ValueError:
    return ValueError(f"task {task}: {what}: {type(error).__name__}: {error}")


def _made(function: Callable[..., object], config: Config) -> object:
    """What the function returns; it gets the config where it asks for it."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind not in _REST]
    if len(needed) == 1 and needed[0].kind != inspect.Parameter.KEYWORD_ONLY:
        return function(config)
    if not needed and any(p.name == "config" for p in parameters):
        return function(config=config)
    if needed:
        names = ", ".join(p.name for p in needed)
        raise ValueError(
            f"task {config.task}: expected a function of nothing, or of a config, not "
            f"of {names}"
        )
    if config.data is not None:
        raise ValueError(f"data: not an option of {config.task}, which takes no config")
    return function()
