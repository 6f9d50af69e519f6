"""Models of any kind as NNX modules, which the trainer knows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


class _Wrapped(nnx.Module):
    """A model that is no NNX module, and whether it trains."""

    deterministic: bool = False  # what `nnx.Module.eval` changes

    @property
    def training(self) -> bool:
        """Whether it is trained, and not evaluated."""
        return not self.deterministic


class Plain(_Wrapped):
    """Parameters of a plain function, which calling applies.

    Args:
      init: key -> the parameters, a tree of arrays.
      apply: (parameters, ...) -> outputs.
      rngs: gives the key.
    """

    def __init__(
        self,
        init: Callable[[jax.Array], Any],
        apply: Callable[..., Any],
        *,
        rngs: nnx.Rngs,
    ):
        self.deterministic = False
        self._apply = apply
        self.parameters = nnx.data(jax.tree.map(nnx.Param, init(rngs.params())))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        parameters = jax.tree.map(
            lambda x: x[...],
            self.parameters,
            is_leaf=lambda x: isinstance(x, nnx.Variable),
        )
        return self._apply(parameters, *args, **kwargs)


class OfLinen(_Wrapped):
    """A Linen module; in training BatchNorm statistics move.

    Args:
      module: the module.
      rngs: gives the keys of its parameters, and of Dropout.
    """

    def __init__(self, module: Any, *, rngs: nnx.Rngs):
        self.deterministic = False
        self.net = nnx.bridge.ToNNX(module, rngs=rngs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        moving = ["batch_stats"] if self.training else False
        return self.net(*args, mutable=moving, **kwargs)


class _Whole(nnx.Module):
    """A module and what is done with it, as one call, which `lazy_init` needs."""

    def __init__(self, module: nnx.Module, forward: Callable[[Any], Any]):
        self.module = module
        self._forward = forward

    def __call__(self) -> Any:
        return self._forward(self.module)


def as_module(
    model: Any, forward: Callable[[Any], Any]
) -> Callable[[nnx.Rngs], nnx.Module]:
    """A function of rngs that makes an NNX module.

    Args:
      model: such a function, a Linen module, or a pair (init, apply).
      forward: (module) -> anything, by calling it with an example: a Linen module makes
        its parameters then.

    Raises:
      TypeError: something else.
    """
    from flax import linen

    if isinstance(model, linen.Module):
        return lambda rngs: _from_linen(model, forward, rngs)
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        init, apply = model
        return lambda rngs: Plain(init, apply, rngs=rngs)
    of_linen = isinstance(model, type) and issubclass(model, linen.Module)
    if of_linen or isinstance(model, nnx.Module) or not callable(model):
        found = "a Linen class" if of_linen else type(model).__name__
        raise TypeError(
            "model: expected a function of nnx.Rngs that makes a module, a Linen "
            f"module that is made, or (init, apply), got {found}"
        )
    return lambda rngs: _made(model, rngs)


def called_with(make: Callable[..., Any], rngs: nnx.Rngs) -> Any:
    """What a function of rngs makes, whether it takes them by place or by name."""
    try:
        parameters = inspect.signature(make).parameters
    except ValueError:  # of what is not written in Python
        return make(rngs)
    return make(rngs=rngs) if "rngs" in parameters else make(rngs)


def _made(model: Callable[..., Any], rngs: nnx.Rngs) -> nnx.Module:
    made = called_with(model, rngs)
    if not isinstance(made, nnx.Module):
        raise TypeError(
            f"model: expected a flax.nnx.Module to be made, got {type(made).__name__}"
        )
    return made


def _from_linen(module: Any, forward: Callable[[Any], Any], rngs: nnx.Rngs) -> Any:
    found = OfLinen(module, rngs=rngs)
    nnx.bridge.lazy_init(_Whole(found, forward))
    return found
