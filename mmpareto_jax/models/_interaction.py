"""Interactions: what passes between the encoders of several modalities."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import global_mean
from mmpareto_jax.models._multimodal import StagedEncoder


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
        depth = _depth(encoders, "MMTM")
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
        maps = _embed(encoders, inputs)
        for stage in range(len(encoders[0].stage_widths)):
            maps = _stage(encoders, stage, maps)
            if stage in self.stages:
                maps = self._exchange(self.stages.index(stage), maps)
        if not self.deterministic:
            self.count[...] = self.count[...] + 1
        features = _pool(encoders, maps)
        return features, features

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


class CentralNet(nnx.Module):
    r"""A central stream that reads every stage of all encoders.

    With :math:`s_i^m` the mean of modality m's map after stage i,

    .. math::
        c_0 = 0, \quad
        c_{i+1} = \mathrm{relu}\Big(\big(\alpha_i c_i
        + \sum_m \alpha_i^m s_i^m P_i^m\big) W_i + b_i\Big),

    and the last c is what the fusion sees. Nothing flows back from it to the encoders,
    so a unimodal loss stays in its own encoder.

    Args:
        encoders: the encoders, in the order of the call; of equally many stages.
        features: width of the central stream.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        joint_widths: `(features,)`.
        gains: α, [M + 1] for each stage: of c first, then of the modalities.
        projections: P of every stage and modality, without bias.
        linears: W, b of every stage.

    Raises:
        ValueError: if the numbers of stages differ.

    Example:
        >>> from flax import nnx
        >>> from mmpareto_jax.models import CentralNet, SmallCNN
        >>> rngs = nnx.Rngs(0)
        >>> encoders = [SmallCNN(1, (4, 8), rngs=rngs) for _ in range(2)]
        >>> CentralNet(encoders, features=16, rngs=rngs).joint_widths
        (16,)

    References:
        Vielzeuf et al., `CentralNet: a Multilayer Approach for Multimodal Fusion
        <https://arxiv.org/abs/1808.07275>`_, ECCV Workshops 2018.
    """

    def __init__(
        self,
        encoders: Sequence[StagedEncoder],
        *,
        features: int = 64,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        depth = _depth(encoders, "CentralNet")
        self.joint_widths: tuple[int, ...] | None = (features,)
        self.gains = nnx.List(
            nnx.Param(jnp.ones((len(encoders) + 1,), param_dtype)) for _ in range(depth)
        )
        self.projections: nnx.List[nnx.List[nnx.Linear]] = nnx.List()
        self.linears: nnx.List[nnx.Linear] = nnx.List()
        for stage in range(depth):
            self.projections.append(
                nnx.List(
                    nnx.Linear(
                        encoder.stage_widths[stage],
                        features,
                        use_bias=False,
                        param_dtype=param_dtype,
                        rngs=rngs,
                    )
                    for encoder in encoders
                )
            )
            self.linears.append(
                nnx.Linear(features, features, param_dtype=param_dtype, rngs=rngs)
            )

    def __call__(
        self, encoders: Sequence[StagedEncoder], inputs: Sequence[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Run the encoders and the central stream.

        Args:
            encoders: those of the construction.
            inputs: what each of them takes.

        Returns:
            The features [B, out_features] of every modality, and the last of the
            central stream [B, features], in a list.
        """
        maps = _embed(encoders, inputs)
        central = jnp.zeros((len(inputs[0]), self.linears[0].in_features))
        for stage, linear in enumerate(self.linears):
            maps = _stage(encoders, stage, maps)
            own, *gains = self.gains[stage][...]
            central = own * central
            for gain, project, x in zip(
                gains, self.projections[stage], maps, strict=True
            ):
                central += gain * project(global_mean(x))
            central = nnx.relu(linear(central))
        return _pool(encoders, maps), [central]


class BottleneckTokens(nnx.Module):
    r"""Attention bottlenecks (MBT): modalities meet in a few shared tokens.

    In each of the later blocks every modality attends to its own tokens and to the
    bottleneck's; the bottleneck is then the mean of what the modalities made of it:

    .. math::
        [x^m, b^m] \leftarrow \mathrm{block}^m([x^m, b]), \quad
        b \leftarrow \tfrac{1}{M} \sum_m b^m.

    A unimodal loss reaches the other encoders through the bottleneck, up to the last
    block but one.

    Args:
        encoders: transformers of equal width and depth, such as `PatchTransformer`.
        num_tokens: size of the bottleneck.
        first: the first block with a bottleneck; `None`: the middle.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        joint_widths: `None`: the fusion sees the features.
        first: the first block with a bottleneck.
        tokens: the bottleneck at first, [num_tokens, width].

    Raises:
        ValueError: if the encoders differ in width or depth, or there is no such block.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import AVClassifier, BottleneckTokens
        >>> from mmpareto_jax.models import PatchTransformer
        >>> rngs = nnx.Rngs(0)
        >>> audio = PatchTransformer((16, 12, 1), (8, 4), depth=2, rngs=rngs)
        >>> visual = PatchTransformer((8, 8, 1), (4, 4), depth=2, rngs=rngs)
        >>> model = AVClassifier(
        ...     10,
        ...     audio_encoder=audio,
        ...     visual_encoder=visual,
        ...     interaction=BottleneckTokens([audio, visual], rngs=rngs),
        ...     rngs=rngs,
        ... )
        >>> model(jnp.ones((2, 16, 12, 1)), jnp.ones((2, 8, 8, 1)))["audio"].shape
        (2, 10)

    References:
        Nagrani et al., `Attention Bottlenecks for Multimodal Fusion
        <https://arxiv.org/abs/2107.00135>`_, NeurIPS 2021.
    """

    def __init__(
        self,
        encoders: Sequence[StagedEncoder],
        *,
        num_tokens: int = 4,
        first: int | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        depth = _depth(encoders, "BottleneckTokens")
        widths = {width for encoder in encoders for width in encoder.stage_widths}
        if len(widths) != 1:
            raise ValueError(
                "BottleneckTokens: encoders must have one width, "
                f"got {[encoder.stage_widths for encoder in encoders]}."
            )
        self.first = depth // 2 if first is None else first
        if not 0 <= self.first < depth:
            raise ValueError(
                f"BottleneckTokens: first must be of 0 to {depth - 1}, got {first}."
            )
        self.joint_widths: tuple[int, ...] | None = None
        tokens = 0.02 * jax.random.normal(rngs.params(), (num_tokens, *widths))
        self.tokens = nnx.Param(tokens.astype(param_dtype))

    def __call__(
        self, encoders: Sequence[StagedEncoder], inputs: Sequence[jax.Array]
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Run the encoders with the bottleneck.

        Args:
            encoders: those of the construction.
            inputs: what each of them takes.

        Returns:
            The features [B, out_features] of every modality, twice: for its own head
            and for the fusion.
        """
        tokens = _embed(encoders, inputs)
        shared = jnp.broadcast_to(
            self.tokens[...].astype(tokens[0].dtype),
            (len(inputs[0]), *self.tokens.shape),
        )
        num = shared.shape[1]
        for stage in range(len(encoders[0].stage_widths)):
            if stage < self.first:
                tokens = _stage(encoders, stage, tokens)
                continue
            both = [jnp.concatenate([x, shared], axis=1) for x in tokens]
            both = _stage(encoders, stage, both)
            tokens = [x[:, :-num] for x in both]
            shared = jnp.mean(jnp.stack([x[:, -num:] for x in both]), axis=0)
        features = _pool(encoders, tokens)
        return features, features


def _depth(encoders: Sequence[StagedEncoder], interaction: str) -> int:
    depths = [len(encoder.stage_widths) for encoder in encoders]
    if len(set(depths)) != 1:
        raise ValueError(
            f"{interaction}: encoders must have equally many stages, got {depths}."
        )
    return depths[0]


def _embed(
    encoders: Sequence[StagedEncoder], inputs: Sequence[jax.Array]
) -> list[jax.Array]:
    return [f.embed(x) for f, x in zip(encoders, inputs, strict=True)]


def _stage(
    encoders: Sequence[StagedEncoder], index: int, maps: Sequence[jax.Array]
) -> list[jax.Array]:
    return [f.stage(index, x) for f, x in zip(encoders, maps, strict=True)]


def _pool(
    encoders: Sequence[StagedEncoder], maps: Sequence[jax.Array]
) -> list[jax.Array]:
    return [f.pool(x) for f, x in zip(encoders, maps, strict=True)]
