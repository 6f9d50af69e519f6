"""What a method is: all that it adds to the plain training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import optax

import mmpareto_jax as mmp
from mmpareto_jax.data import Source
from mmpareto_jax.models import Outputs
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._choices import FusionName, SharingName
from mmpareto_jax.training._config import Config

Groups: TypeAlias = mmp.ObjectiveGroups
Losses: TypeAlias = dict[str, jax.Array]
Transformation: TypeAlias = optax.GradientTransformationExtraArgs


class Method(NamedTuple):
    """What a method adds to the loop, which knows none of them by name.

    Attributes:
      combination: (groups, config) -> the transformation from stacked gradients to
        updates, with ``losses=`` and what `signals` gives.
      probes: whether the unimodal heads only watch, and train no encoder.
      fusion: the fusion that belongs to it; None: that of the config.
      sharing: the sharing that belongs to it; None: that of the config.
      losses: (losses by objective, outputs, batch, memory) -> objective -> what is
        differentiated.
      signals: (outputs, batch) -> further arguments for ``tx.update``.
      memory: (outputs of a batch, as shapes) -> what `losses` sees beside the batch;
        part of the state, so of the checkpoints.
      advance: (memory, params, stacked gradients) -> memory, at the end of every step.
      steer: (rest of the model's state, memory) -> rest, after that.
      between_epochs: None, or (state, `Epoch`) -> state, before every epoch but the
        first.
    """

    combination: Callable[[Groups, Config], Transformation]
    probes: bool = False
    fusion: FusionName | None = None
    sharing: SharingName | None = None
    losses: Callable[[Losses, Outputs, Batch, Any], Losses] = lambda losses, *_: losses
    signals: Callable[[Outputs, Batch], dict[str, Any]] = lambda *_: {}
    memory: Callable[[Outputs], Any] = lambda _: ()
    advance: Callable[[Any, Any, Any], Any] = lambda memory, *_: memory
    steer: Callable[[Any, Any], Any] = lambda rest, _: rest
    between_epochs: Callable[[Any, Epoch], Any] | None = None


class Epoch(NamedTuple):
    """What a method may look at between two epochs.

    Attributes:
      number: of the epochs that are done.
      config: of the run.
      data: split -> examples.
      evaluate: (state, examples) -> name -> float: losses and accuracies.
      features: (state, examples) -> encoder -> features [N, D].
      first: the parameters that the run began with.
    """

    number: int
    config: Config
    data: Mapping[str, Source]
    evaluate: Callable[[Any, Source], dict[str, float]]
    features: Callable[[Any, Source], dict[str, Any]]
    first: Any
