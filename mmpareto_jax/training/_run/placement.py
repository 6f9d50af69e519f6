"""Where a run lives: how batches and states lie on the devices of a mesh."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmpareto_jax.data import Source, as_examples, eval_batches
from mmpareto_jax.training._run.mesh import mesh_of
from mmpareto_jax.training._run.numbers import numbers

Shard: TypeAlias = Literal["params"]

# Numbers of an array that is worth dividing: 16 KiB in float32. Below, what a message
# costs is not its size.
WORTH = 4096


@dataclasses.dataclass(frozen=True)
class Placement:
    """A mesh, and what lies where on it.

    Batches are divided along "data". Parameters and the optimiser's state are copied to
    all devices; with an axis "model" their last dimensions are divided along it, and
    with `shard` another dimension is divided along "data". All else is copied.

    Attributes:
      mesh: of the axes "data" and "model"; None: one device, without any of this.
      shard: "params": parameters and the optimiser's state are divided along "data".
    """

    mesh: Mesh | None = None
    shard: Shard | None = None

    def size(self, axis: str) -> int:
        """Devices along an axis; 1 where there is none."""
        return int(self.mesh.shape.get(axis, 1)) if self.mesh else 1

    def check(self, batch_size: int) -> None:
        """Refuses a training batch that cannot be divided.

        Raises:
          ValueError: its size is no multiple of the devices along "data".
        """
        if batch_size % self.size("data"):
            raise ValueError(
                f"mesh: batch_size: expected a multiple of data={self.size('data')}, "
                f"got {batch_size}"
            )

    def state(self, tree: Any) -> Any:
        """Leaf -> its sharding, of parameters and what is kept for each of them."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda x: self._at(*self._spec(x)), tree)

    def copied(self, tree: Any) -> Any:
        """Leaf -> the sharding of what all devices have."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda _: self._at(), tree)

    def put(self, tree: Any, shardings: Any) -> Any:
        """The same numbers, which every process has, on the mesh."""
        return tree if self.mesh is None else jax.tree.map(_whole, tree, shardings)

    def jit(
        self, function: Callable[..., Any], out: Any = None, **options: Any
    ) -> Callable[..., Any]:
        """Compiled, with results copied to all devices.

        Args:
          function: of placed arrays.
          out: result -> its sharding, where it is another.
          **options: further ones of ``jax.jit``.
        """
        if self.mesh is not None:
            options["out_shardings"] = self._at() if out is None else out
        return jax.jit(function, **options)

    def gathered(self, params: Any) -> Any:
        """Parameters as a forward pass takes them: whole along "data"."""
        if not self.shard:
            return params

        def gather(x: Any) -> Any:
            spec = (name if name == "model" else None for name in self._spec(x))
            return jax.lax.with_sharding_constraint(x, self._at(*spec))

        return jax.tree.map(gather, params)

    def divided(self, grads: Any, leading: int = 0) -> Any:
        """Gradients where their parameters are: what is summed for a shard goes there.

        Args:
          grads: a tree like the parameters.
          leading: dimensions that come before those of the parameters.
        """
        if not self.shard:
            return grads

        def divide(x: Any) -> Any:
            one = jax.ShapeDtypeStruct(x.shape[leading:], x.dtype)
            spec = (*[None] * leading, *self._spec(one))
            return jax.lax.with_sharding_constraint(x, self._at(*spec))

        return jax.tree.map(divide, grads)

    def any_part(
        self,
        function: Callable[..., dict[str, jax.Array]],
        new: dict[str, Any],
        old: dict[str, Any],
        at: dict[str, Any],
    ) -> dict[str, jax.Array]:
        """Whether something is so of any device's part of arrays: in one message.

        Args:
          function: (arrays, others) -> name -> bool [].
          new: name -> array.
          old: name -> array that lies as that does.
          at: name -> the sharding of both.
        """
        specs = {k: at[k].spec for k in new} if self.mesh else {}
        axes = {axis for spec in specs.values() for axis in spec if axis is not None}
        if not axes:
            return function(new, old)

        def of_parts(new: Any, old: Any) -> dict[str, jax.Array]:
            found = function(new, old)
            each = jnp.stack(list(found.values())).astype(jnp.int32)
            anywhere = jax.lax.pmax(each, tuple(sorted(axes))) > 0
            return dict(zip(found, anywhere, strict=True))

        return jax.shard_map(
            of_parts,
            mesh=self.mesh,
            in_specs=(specs, specs),
            out_specs=P(),
            check_vma=False,
        )(new, old)

    def rows(self, size: int) -> np.ndarray:
        """The rows of a batch of this size that this process needs, ascending."""
        if not self.mesh or size % self.size("data"):
            return np.arange(size)
        spans = self._at("data").addressable_devices_indices_map((size,)).values()
        needed = np.zeros(size, bool)
        for (span,) in (x for x in spans if x):
            needed[span] = True
        return np.flatnonzero(needed)

    def batch(self, local: dict[str, np.ndarray], size: int) -> dict[str, Any]:
        """A batch on the mesh.

        Args:
          local: name -> array [`rows` of the batch, ...].
          size: B, of the whole batch.

        Returns:
          Name -> array [B, ...], divided along "data" if that divides B.
        """
        local = numbers(local)
        if self.mesh is None:
            return local
        rows = self.rows(size)
        where = self._at() if size % self.size("data") else self._at("data")

        def placed(x: np.ndarray) -> jax.Array:
            def shard(index: Any) -> np.ndarray:
                first, end, _ = index[0].indices(size)
                begin = int(np.searchsorted(rows, first))
                return x[begin : begin + end - first]

            return jax.make_array_from_callback((size, *x.shape[1:]), where, shard)

        return {name: placed(x) for name, x in local.items()}

    def held_out(
        self, source: Source, batch_size: int, fill: bool
    ) -> Iterator[dict[str, Any]]:
        """All examples once, in order, on the mesh; see ``data.eval_batches``.

        Args:
          source: the examples.
          batch_size: of a batch, at most; more where it is filled up for the mesh.
          fill: whether the last batch is filled up.
        """
        number, along = len(as_examples(source)), self.size("data")
        size = min(batch_size, number)
        if fill:
            size = -(-size // along) * along
        batches = eval_batches(source, batch_size=size, fill=fill, rows=self.rows)
        for begin, local in zip(range(0, number, size), batches, strict=True):
            yield self.batch(local, size if fill else min(size, number - begin))

    def of_each_device(self, here: np.ndarray) -> jax.Array:
        """A scalar of this process on each of its devices, as one array [devices]."""
        assert self.mesh is not None
        where = NamedSharding(self.mesh, P(self.mesh.axis_names))
        return jax.make_array_from_callback(
            (self.mesh.size,), where, lambda _: here[None]
        )

    def describe(self) -> dict[str, Any]:
        """What stands in ``config.json``."""
        devices = jax.devices()
        return {
            "device": f"{len(devices)} × {devices[0].device_kind}",
            "mesh": dict(self.mesh.shape) if self.mesh else None,
            "shard": self.shard,
            "processes": jax.process_count(),
        }

    def _at(self, *spec: str | None) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, P(*spec))

    def _spec(self, x: Any) -> tuple[str | None, ...]:
        """The axis along which each dimension is divided: by the shape alone."""
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return ()
        along_data = self.size("data") if self.shard else 1
        return divided_dimensions(tuple(x.shape), along_data, self.size("model"))


ONE_DEVICE = Placement()


@functools.cache
def divided_dimensions(
    shape: tuple[int, ...], data: int, model: int
) -> tuple[str | None, ...]:
    """The axis of the mesh along which each dimension of an array is divided.

    The last dimension that can be goes along "model"; of those that are left, the
    largest that can be goes along "data". Small arrays are not divided.

    Args:
      shape: of the array.
      data: devices along "data"; 1: it divides nothing.
      model: devices along "model".

    Example:
      >>> divided_dimensions((512, 1024), data=4, model=2)
      ('data', 'model')
      >>> divided_dimensions((3, 3, 64, 130), data=4, model=4)
      (None, None, 'model', None)
      >>> divided_dimensions((64,), data=4, model=2)
      ()
    """
    if math.prod(shape) < WORTH:
        return ()
    spec: list[str | None] = [None] * len(shape)
    fits = [i for i, n in enumerate(shape) if n % model == 0]
    if model > 1 and fits:
        spec[fits[-1]] = "model"
    fits = [i for i, n in enumerate(shape) if n % data == 0 and spec[i] is None]
    if data > 1 and fits:
        spec[max(fits, key=lambda i: shape[i])] = "data"
    return tuple(spec)


def placement_of(mesh: Mesh | str | None, shard: Shard | None = None) -> Placement:
    """The placement that a person asks for.

    Args:
      mesh: "auto", all devices along "data"; sizes of the axes, as "data=4,model=2";
        a mesh; None: one device, or with several processes as "auto".
      shard: "params", or None.

    Raises:
      ValueError: axes with other names, fewer devices than asked for, a mesh without
        some of the devices of several processes, or `shard` of something else or
        without a mesh.
    """
    if shard not in (None, "params"):
        raise ValueError(f"shard: expected params, got {shard}")
    if mesh is None and jax.process_count() > 1:
        mesh = "auto"
    if mesh is None:
        if shard:
            raise ValueError("shard: expected a mesh with it, as --mesh auto")
        return ONE_DEVICE
    return Placement(mesh_of(mesh), shard)


def _whole(x: Any, sharding: NamedSharding) -> Any:
    """An array on the mesh, of the numbers that every process has."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return jax.device_put(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _whole(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    numbers = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda i: numbers[i])
