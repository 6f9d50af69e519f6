"""Encoders side by side, as an interaction runs them."""

from collections.abc import Sequence

import jax

from mmpareto_jax.models._multimodal import StagedEncoder


def depth_all(encoders: Sequence[StagedEncoder], interaction: str) -> int:
    """The number of stages, which has to be one."""
    depths = [len(encoder.stage_widths) for encoder in encoders]
    if len(set(depths)) != 1:
        raise ValueError(
            f"{interaction}: encoders must have equally many stages, got {depths}."
        )
    return depths[0]


def embed_all(
    encoders: Sequence[StagedEncoder], inputs: Sequence[jax.Array]
) -> list[jax.Array]:
    """What the first stages take."""
    return [f.embed(x) for f, x in zip(encoders, inputs, strict=True)]


def stage_all(
    encoders: Sequence[StagedEncoder], index: int, maps: Sequence[jax.Array]
) -> list[jax.Array]:
    """One stage of each encoder."""
    return [f.stage(index, x) for f, x in zip(encoders, maps, strict=True)]


def pool_all(
    encoders: Sequence[StagedEncoder], maps: Sequence[jax.Array]
) -> list[jax.Array]:
    """The features."""
    return [f.pool(x) for f, x in zip(encoders, maps, strict=True)]
