"""CentralNet: a central stream reads every stage of all encoders."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import global_mean
from mmpareto_jax.models._multimodal import StagedEncoder
from mmpareto_jax.models._stages import depth_all, embed_all, pool_all, stage_all


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
        depth = depth_all(encoders, "CentralNet")
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
        maps = embed_all(encoders, inputs)
        central = jnp.zeros((len(inputs[0]), self.linears[0].in_features))
        for stage, linear in enumerate(self.linears):
            maps = stage_all(encoders, stage, maps)
            own, *gains = self.gains[stage][...]
            central = own * central
            for gain, project, x in zip(
                gains, self.projections[stage], maps, strict=True
            ):
                central += gain * project(global_mean(x))
            central = nnx.relu(linear(central))
        return pool_all(encoders, maps), [central]
