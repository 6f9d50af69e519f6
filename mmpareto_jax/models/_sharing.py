"""How tasks share a trunk: all of it, none of it, by cross-stitch, by attention."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import batch_norm, conv
from mmpareto_jax.models._multimodal import Encoder, StagedEncoder
from mmpareto_jax.models._stages import depth_all, embed_all, pool_all, stage_all


class HardSharing(nnx.Module):
    """One trunk for all tasks.

    Args:
        trunk: maps inputs to features; has the attribute `out_features`.
        num_tasks: how many tasks.

    Attributes:
        trunk: what was passed.
        out_features: width of the features.

    References:
        Caruana, Multitask Learning, Machine Learning 1997.
    """

    def __init__(self, trunk: Encoder, num_tasks: int):
        self.trunk = trunk
        self.num_tasks = num_tasks
        self.out_features = trunk.out_features

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """The same features for every task."""
        return [self.trunk(x)] * self.num_tasks


class Separate(nnx.Module):
    """A trunk for each task: single-task models side by side.

    Args:
        make_trunk: makes a trunk; called once for every task.
        num_tasks: how many tasks.

    Attributes:
        trunks: one for each task.
        out_features: width of the features.
    """

    def __init__(self, make_trunk: Callable[[], Encoder], num_tasks: int):
        self.trunks = nnx.List(make_trunk() for _ in range(num_tasks))
        self.out_features = self.trunks[0].out_features

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """The features of every task."""
        return [trunk(x) for trunk in self.trunks]


class CrossStitch(nnx.Module):
    r"""A trunk for each task, whose maps are mixed after every stage.

    .. math:: x_k \leftarrow \sum_j \alpha_{kj} x_j

    with a learnt K×K matrix for every stage (the original has one for each channel),
    which begins with `keep` on its diagonal and equal shares of the rest beside it.
    Every loss reaches all trunks but what follows the last stage.

    Args:
        make_trunk: makes a trunk with stages; called once for every task.
        num_tasks: how many tasks.
        keep: the diagonal at the beginning.
        param_dtype: type of the matrices.

    Attributes:
        trunks: one for each task.
        mixings: the matrices α, [K, K] for each stage.
        out_features: width of the features.

    References:
        Misra, Shrivastava, Gupta & Hebert, `Cross-stitch Networks for Multi-task
        Learning <https://arxiv.org/abs/1604.03539>`_, CVPR 2016, equation 1.
    """

    def __init__(
        self,
        make_trunk: Callable[[], StagedEncoder],
        num_tasks: int,
        *,
        keep: float = 0.9,
        param_dtype: DTypeLike = jnp.float32,
    ):
        self.trunks = nnx.List(make_trunk() for _ in range(num_tasks))
        self.out_features = self.trunks[0].out_features
        rest = (1 - keep) / max(num_tasks - 1, 1)
        first = jnp.full((num_tasks, num_tasks), rest, param_dtype)
        first = jnp.fill_diagonal(first, keep if num_tasks > 1 else 1, inplace=False)
        depth = depth_all(list(self.trunks), "CrossStitch")
        # Copies: a step that is given its memory cannot take one buffer twice.
        self.mixings = nnx.List(nnx.Param(jnp.array(first)) for _ in range(depth))

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """The features of every task."""
        maps = embed_all(list(self.trunks), [x] * len(self.trunks))
        for index, mixing in enumerate(self.mixings):
            maps = stage_all(list(self.trunks), index, maps)
            stacked = jnp.stack(maps)
            mixed = jnp.tensordot(mixing[...].astype(stacked.dtype), stacked, axes=1)
            maps = list(mixed)
        return pool_all(list(self.trunks), maps)


class _Normed(nnx.Module):
    """A convolution and BatchNorm."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        size: int,
        *,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv = conv(
            in_features,
            out_features,
            size,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.norm = batch_norm(
            out_features, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        y: jax.Array = self.norm(self.conv(x))
        return y


class _Attention(nnx.Module):
    """One task's attention to the trunk's map after one stage."""

    def __init__(
        self, before: int, width: int, make: Callable[[int, int, int], _Normed]
    ):
        self.bring = make(before, width, 3) if before else None
        self.hidden = make(width * (2 if before else 1), width, 1)
        self.mask = make(width, width, 1)

    def __call__(self, shared: jax.Array, before: jax.Array | None) -> jax.Array:
        seen = shared
        if self.bring is not None and before is not None:
            brought = nnx.relu(self.bring(before))
            # To the resolution of this stage, whichever way it changed.
            shape = (*shared.shape[:-1], brought.shape[-1])
            brought = jax.image.resize(brought, shape, "linear")
            seen = jnp.concatenate([shared, brought.astype(shared.dtype)], axis=-1)
        mask: jax.Array = nnx.sigmoid(self.mask(nnx.relu(self.hidden(seen))))
        return mask * shared


class MTAN(nnx.Module):
    r"""One trunk, to whose stages every task attends by itself.

    After stage i the map p of the trunk is masked for task k by what the task saw
    before:

    .. math::
        f_i^k = \sigma(g([p_i, b(f_{i-1}^k)])) \odot p_i

    with g two 1x1 convolutions, b a 3x3 convolution and a change of resolution, all
    with BatchNorm. What follows the trunk's last stage is applied to the last f of each
    task. Different from the original, a stage is read once, after its end.

    Args:
        trunk: with stages.
        num_tasks: how many tasks.
        dtype: type of the attentions' computation.
        param_dtype: type of their parameters.
        rngs: gives the `params` keys.

    Attributes:
        trunk: what was passed.
        attentions: for each task a list with one for each stage.
        out_features: width of the features.

    References:
        Liu, Johns & Davison, `End-to-End Multi-Task Learning with Attention
        <https://arxiv.org/abs/1803.10704>`_, CVPR 2019, equations 1-3.
    """

    def __init__(
        self,
        trunk: StagedEncoder,
        num_tasks: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.trunk = trunk
        self.out_features = trunk.out_features
        widths = trunk.stage_widths
        make = functools.partial(
            _Normed, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )
        self.attentions: nnx.List[nnx.List[_Attention]] = nnx.List()
        for _ in range(num_tasks):
            stages = zip((0, *widths), widths, strict=False)
            self.attentions.append(
                nnx.List(_Attention(before, width, make) for before, width in stages)
            )

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """The features of every task."""
        shared = self.trunk.embed(x)
        seen: Sequence[jax.Array | None] = [None] * len(self.attentions)
        for index in range(len(self.trunk.stage_widths)):
            shared = self.trunk.stage(index, shared)
            seen = [
                own[index](shared, before)
                for own, before in zip(self.attentions, seen, strict=True)
            ]
        return [self.trunk.pool(f) for f in seen if f is not None]
