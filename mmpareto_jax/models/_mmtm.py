"""MMTM: every modality rescales the channels of the others."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import global_mean
from mmpareto_jax.models._multimodal import StagedEncoder
from mmpareto_jax.models._stages import depth_all, embed_all, pool_all, stage_all


class Control(nnx.Variable[jax.Array]):
    """A number that a training method sets and no gradient reaches."""


class MMTM(nnx.Module):
    r"""Multimodal transfer modules: every modality rescales the others' channels.

    After each of the chosen stages, with :math:`s^m` the mean of the map of modality m
    over all frames and positions,

    .. math::
        h = \mathrm{relu}([s^1, \dots, s^M] W + b), \quad
        x^m \leftarrow 2 \sigma(h W_m + b_m) \odot x^m.

    A unimodal loss reaches the other encoders up to the last exchange.

    For balanced learning (Wu et al., 2022) one modality can be cut off in training:
    where `care` is its number, its gates are the running means of all batches before
    and this one, so that nothing of the others reaches it.

    Args:
        encoders: the encoders, in the order of the call; of equally many stages.
        stages: after which stages to exchange; `None`: after the later half.
        reduction: h has a 1 / reduction of all channels.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        joint_widths: `None`: the fusion sees the features.
        stages: where the exchanges are.
        squeezes: W, b of every exchange.
        excitations: W_m, b_m of every exchange and modality.
        means: running means of the gates, `flax.nnx.BatchStat` [channels] of every
            exchange and modality.
        count: batches in them.
        care: a scalar int32, the modality that is cut off; -1: none.
        deterministic: whether `care` and the means are left alone; `model.eval()` and
            `model.train()` set it.

    Raises:
        ValueError: if the numbers of stages differ, or there is no such stage.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import MMTM, AVClassifier, SmallCNN
        >>> rngs = nnx.Rngs(0)
        >>> audio, visual = (SmallCNN(1, (4, 8), rngs=rngs) for _ in range(2))
        >>> model = AVClassifier(
        ...     10,
        ...     audio_encoder=audio,
        ...     visual_encoder=visual,
        ...     interaction=MMTM([audio, visual], rngs=rngs),
        ...     rngs=rngs,
        ... )
        >>> model(jnp.ones((2, 16, 12, 1)), jnp.ones((2, 8, 8, 1)))["joint"].shape
        (2, 10)

    References:
        Joze et al., `MMTM: Multimodal Transfer Module for CNN Fusion
        <https://arxiv.org/abs/1911.08670>`_, CVPR 2020.

        Wu et al., `Characterizing and Overcoming the Greedy Nature of Learning in
        Multi-modal Deep Neural Networks <https://arxiv.org/abs/2202.05306>`_, ICML
        2022.
    """

    def __init__(
        self,
        encoders: Sequence[StagedEncoder],
        *,
        stages: Sequence[int] | None = None,
        reduction: int = 4,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        depth = depth_all(encoders, "MMTM")
        self.stages = tuple(range(depth // 2, depth) if stages is None else stages)
        if not all(0 <= stage < depth for stage in self.stages):
            raise ValueError(
                f"MMTM: stages must be of 0 to {depth - 1}, got {self.stages}."
            )
        self.joint_widths: tuple[int, ...] | None = None
        self.deterministic = False
        self.care = Control(jnp.full((), -1, jnp.int32))
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.means: nnx.List[nnx.List[nnx.BatchStat[jax.Array]]] = nnx.List()
        self.squeezes: nnx.List[nnx.Linear] = nnx.List()
        self.excitations: nnx.List[nnx.List[nnx.Linear]] = nnx.List()
        for stage in self.stages:
            widths = [encoder.stage_widths[stage] for encoder in encoders]
            hidden = max(1, sum(widths) // reduction)
            squeeze, *excitations = (
                nnx.Linear(m, n, param_dtype=param_dtype, rngs=rngs)
                for m, n in ((sum(widths), hidden), *((hidden, w) for w in widths))
            )
            self.squeezes.append(squeeze)
            self.excitations.append(nnx.List(excitations))
            self.means.append(nnx.List(nnx.BatchStat(jnp.zeros(w)) for w in widths))

    def __call__(
        self, encoders: Sequence[StagedEncoder], inputs: Sequence[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Run the encoders with the exchanges.

        Args:
            encoders: those of the construction.
            inputs: what each of them takes.

        Returns:
            The features [B, out_features] of every modality, twice: for its own head
            and for the fusion.
        """
        maps = embed_all(encoders, inputs)
        for stage in range(len(encoders[0].stage_widths)):
            maps = stage_all(encoders, stage, maps)
            if stage in self.stages:
                maps = self._exchange(self.stages.index(stage), maps)
        if not self.deterministic:
            self.count[...] = self.count[...] + 1
        features = pool_all(encoders, maps)
        return features, features

    @staticmethod
    def exchange_of(params: Any, number: int) -> tuple[Any, Any]:
        """What modality `number` takes from the others by.

        Args:
            params: of an `MMTM`, as `flax.nnx.state` has them; or as many gradients.
            number: the modality, in the order of the encoders.

        Returns:
            Its own excitations, by exchange; and the squeezes, which are everybody's.
        """
        own = {index: each[number] for index, each in params["excitations"].items()}
        return own, params["squeezes"]

    def _exchange(self, index: int, maps: list[jax.Array]) -> list[jax.Array]:
        squeezed = jnp.concatenate([global_mean(x) for x in maps], axis=-1)
        hidden = nnx.relu(self.squeezes[index](squeezed))
        out = []
        for number, x in enumerate(maps):
            gate = nnx.sigmoid(self.excitations[index][number](hidden))
            if not self.deterministic:
                gate = self._followed(index, number, gate)
            gate = 2 * gate.astype(x.dtype)
            out.append(x * gate.reshape(len(x), *(1,) * (x.ndim - 2), -1))
        return out

    def _followed(self, index: int, number: int, gate: jax.Array) -> jax.Array:
        """The gate [B, C]; or its running mean, where this modality is cut off."""
        stored = self.means[index][number]
        now = jax.lax.stop_gradient(jnp.mean(gate, axis=0))
        mean = stored[...] + (now - stored[...]) / (self.count[...] + 1)
        stored[...] = mean.astype(stored[...].dtype)
        alone = jnp.broadcast_to(mean[None].astype(gate.dtype), gate.shape)
        return jnp.where(self.care[...] == number, alone, gate)
