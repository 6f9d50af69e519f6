"""The audio-visual classifier: two encoders, a joint head, a head per modality."""

from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._fusion import ConcatFusion, xavier_normal
from mmpareto_jax.models._resnet import ResNet18


class Encoder(Protocol):
    """What a model asks of an encoder: one modality's input to features.

    Attributes:
        out_features: the width of the features.
    """

    out_features: int

    def __call__(self, x: jax.Array, /) -> jax.Array:
        """Map a batch of inputs to features [B, out_features]."""
        ...


class Fusion(Protocol):
    """What a model asks of a fusion: the features of all modalities to logits."""

    def __call__(self, features: Sequence[jax.Array], /) -> jax.Array:
        """Map features [B, ...], one array per modality, to logits [B, num_classes]."""
        ...


class AVClassifier(nnx.Module):
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
        widths = (audio_encoder.out_features, visual_encoder.out_features)
        if fusion is None:
            fusion = ConcatFusion(
                widths, num_classes, param_dtype=param_dtype, rngs=rngs
            )
        self.audio_encoder = audio_encoder
        self.visual_encoder = visual_encoder
        self.fusion = fusion
        self.audio_head, self.visual_head = (
            nnx.Linear(
                width,
                num_classes,
                kernel_init=xavier_normal,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for width in widths
        )

    def __call__(
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
        audio_features = self.audio_encoder(audio)
        visual_features = self.visual_encoder(visual)
        probed = [audio_features, visual_features]
        if detach_unimodal:
            probed = [jax.lax.stop_gradient(x) for x in probed]
        logits = {
            "joint": self.fusion([audio_features, visual_features]),
            "audio": self.audio_head(probed[0]),
            "visual": self.visual_head(probed[1]),
        }
        return {
            name: z.astype(jnp.promote_types(z.dtype, jnp.float32))
            for name, z in logits.items()
        }
