"""The audio-visual classifier: two encoders, a joint head, a head per modality."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._multimodal import (
    Encoder,
    Fusion,
    Interaction,
    MultimodalClassifier,
)
from mmpareto_jax.models._resnet import ResNet18


class AVClassifier(MultimodalClassifier):
    """Joint and unimodal logits from sound and frames.

    As it stands this is the official network of MMPareto (and OGM-GE): two ResNet-18,
    one channel for the spectrogram and three for the frames, a joint linear head on
    the concatenated features (audio first), and a linear head per modality that sees
    this modality's features only. So the audio encoder is reached by the objectives
    joint and audio, the visual encoder by joint and visual, each head by one. Linear
    layers start from Xavier's normal initialisation and bias 0, as in the official
    code.

    Train and evaluation mode are switched as usual, by `model.train()` and
    `model.eval()`.

    Args:
        num_classes: the number of classes.
        audio_encoder: a module that maps audio to [B, out_features] and has the
            attribute `out_features`; `None`: a ResNet-18 with one channel.
        visual_encoder: the same for the frames; `None`: a ResNet-18 with three.
        fusion: a module that maps the list of features (audio, visual) to logits;
            `None`: `ConcatFusion`.
        interaction: a module that runs the encoders, see `MultimodalClassifier`;
            `None`: each runs for itself, as in the official network.
        dtype: type of the computation in the default encoders, `jnp.bfloat16` for
            mixed precision. Pooling, heads and logits are float32 or wider. An encoder
            that you pass has its own `dtype`.
        param_dtype: type of the parameters that this class creates.
        rngs: gives the `params` keys.

    Attributes:
        audio_encoder: the audio encoder.
        visual_encoder: the visual encoder.
        fusion: the joint head.
        audio_head: `flax.nnx.Linear` on the audio features.
        visual_head: `flax.nnx.Linear` on the visual features.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import AVClassifier, SmallCNN
        >>> rngs = nnx.Rngs(0)
        >>> model = AVClassifier(
        ...     10,
        ...     audio_encoder=SmallCNN(1, (4, 8), rngs=rngs),
        ...     visual_encoder=SmallCNN(3, (4, 8), rngs=rngs),
        ...     rngs=rngs,
        ... )
        >>> logits = model(jnp.ones((2, 32, 24, 1)), jnp.ones((2, 4, 16, 16, 3)))
        >>> {name: z.shape for name, z in logits.items()}
        {'joint': (2, 10), 'audio': (2, 10), 'visual': (2, 10)}

    References:
        Wei & Hu, `MMPareto: Boosting Multimodal Learning with Innocent Unimodal
        Assistance <https://arxiv.org/abs/2405.17730>`_, ICML 2024.

        Peng et al., `Balanced Multimodal Learning via On-the-fly Gradient Modulation
        <https://arxiv.org/abs/2203.15332>`_, CVPR 2022.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        audio_encoder: Encoder | None = None,
        visual_encoder: Encoder | None = None,
        fusion: Fusion | None = None,
        interaction: Interaction | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if audio_encoder is None:
            audio_encoder = ResNet18(1, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        if visual_encoder is None:
            visual_encoder = ResNet18(
                3, dtype=dtype, param_dtype=param_dtype, rngs=rngs
            )
        super().__init__(
            num_classes,
            {"audio": audio_encoder, "visual": visual_encoder},
            fusion=fusion,
            interaction=interaction,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    # Two arrays instead of a mapping: what the official network takes.
    def __call__(  # type: ignore[override]
        self, audio: jax.Array, visual: jax.Array, *, detach_unimodal: bool = False
    ) -> dict[str, jax.Array]:
        """Logits of the three objectives.

        Args:
            audio: [B, F, T, 1], a spectrogram of F frequencies and T times (or what the
                audio encoder takes).
            visual: [B, frames, H, W, 3] (or what the visual encoder takes).
            detach_unimodal: whether the unimodal heads are probes: they see the
                features, but their losses do not reach the encoders.

        Returns:
            `{"joint": z, "audio": z, "visual": z}`, each z [B, num_classes], float32 or
            wider.

        Raises:
            ValueError: if an encoder or the fusion refuses its input.
        """
        inputs = {"audio": audio, "visual": visual}
        return super().__call__(inputs, detach_unimodal=detach_unimodal)
