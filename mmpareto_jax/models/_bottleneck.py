"""MBT: modalities meet in a few shared tokens."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._multimodal import StagedEncoder
from mmpareto_jax.models._stages import depth_all, embed_all, pool_all, stage_all


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
        depth = depth_all(encoders, "BottleneckTokens")
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

        Raises:
            ValueError: if what an encoder's stages map is no sequence of tokens.
        """
        tokens = embed_all(encoders, inputs)
        shared = jnp.broadcast_to(
            self.tokens[...].astype(tokens[0].dtype),
            (len(inputs[0]), *self.tokens.shape),
        )
        num = shared.shape[1]
        for stage in range(len(encoders[0].stage_widths)):
            if stage < self.first:
                tokens = stage_all(encoders, stage, tokens)
                continue
            lengths = [x.shape[1] for x in tokens]
            _check_tokens(tokens, lengths, shared.shape[2])
            both = [jnp.concatenate([x, shared], axis=1) for x in tokens]
            both = stage_all(encoders, stage, both)
            _check_tokens(both, [n + num for n in lengths], shared.shape[2])
            tokens = [x[:, :-num] for x in both]
            shared = jnp.mean(jnp.stack([x[:, -num:] for x in both]), axis=0)
        features = pool_all(encoders, tokens)
        return features, features


def _check_tokens(
    maps: Sequence[jax.Array], lengths: Sequence[int], width: int
) -> None:
    for x, length in zip(maps, lengths, strict=True):
        if x.shape[1:] != (length, width):
            raise ValueError(
                "BottleneckTokens: encoders must map tokens "
                f"[B, {length}, {width}] to as many, got {list(x.shape)}."
            )
