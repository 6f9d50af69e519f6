"""Any number of modalities: encoders, what passes between them, a head for each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._fusion import ConcatFusion, xavier_normal


class Encoder(Protocol):
    """What a model asks of an encoder: one modality's input to features.

    Attributes:
        out_features: the width of the features.
    """

    out_features: int

    def __call__(self, x: jax.Array, /) -> jax.Array:
        """Map a batch of inputs to features [B, out_features]."""
        ...


class StagedEncoder(Encoder, Protocol):
    """An encoder that an interaction can enter between its stages.

    Calling it is `pool(stage(n - 1, ... stage(0, embed(x))))`.

    Attributes:
        out_features: the width of the features.
        stage_widths: the number of channels after each stage.
    """

    out_features: int
    stage_widths: tuple[int, ...]

    def embed(self, x: jax.Array, /) -> jax.Array:
        """Map inputs to what the first stage takes, [B, ..., C]."""
        ...

    def stage(self, index: int, x: jax.Array, /) -> jax.Array:
        """Apply one stage: [B, ..., C] to [B, ..., stage_widths[index]]."""
        ...

    def pool(self, x: jax.Array, /) -> jax.Array:
        """Map what the last stage gave to features [B, out_features]."""
        ...


class Fusion(Protocol):
    """What a model asks of a fusion: the features of all modalities to logits."""

    def __call__(self, features: Sequence[jax.Array], /) -> jax.Array:
        """Map features [B, ...], one array per modality, to logits [B, num_classes]."""
        ...


class Interaction(Protocol):
    """What passes between encoders while they run.

    Attributes:
        joint_widths: the widths of what the fusion sees; `None`: of the features.
    """

    joint_widths: tuple[int, ...] | None

    def __call__(
        self, encoders: Any, inputs: Any, /
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Run the encoders.

        Returns:
            The features of every modality, for its own head, and the arrays that the
            fusion sees.
        """
        ...


class Outputs(NamedTuple):
    """All that a forward pass gives.

    Attributes:
        logits: `joint` and every modality -> [B, num_classes].
        features: modality -> [B, out_features].
        parts: modality -> its part of the joint logits [B, num_classes], which is
            their sum; empty where the fusion is not a sum over modalities.
    """

    logits: dict[str, jax.Array]
    features: dict[str, jax.Array]
    parts: dict[str, jax.Array]


class MultimodalClassifier(nnx.Module):
    """Joint logits, and logits of every modality alone.

    Each modality has an encoder and a linear head; a fusion of all features gives the
    joint logits. Without an interaction a modality's own loss reaches its encoder and
    head only. With one it may reach the other encoders too: these parameters then
    belong to groups of three or more objectives, which
    `mmpareto_jax.objective_groups` finds.

    Args:
        num_classes: the number of classes.
        encoders: modality -> a module that maps its input to [B, out_features] and has
            the attribute `out_features`; at least one, none called `joint`. An
            interaction asks for a `StagedEncoder`.
        fusion: a module that maps the list of features, in the order of `encoders`, to
            logits; `None`: `ConcatFusion`.
        interaction: a module that runs the encoders; `None`: each runs for itself.
        param_dtype: type of the parameters that this class creates.
        rngs: gives the `params` keys.

    Attributes:
        modalities: the names.
        fusion: the joint head.
        interaction: what was passed.
        X_encoder: the encoder of modality X.
        X_head: `flax.nnx.Linear` on its features.

    Raises:
        ValueError: no modality, or one that is called `joint`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import MultimodalClassifier, SmallCNN
        >>> rngs = nnx.Rngs(0)
        >>> model = MultimodalClassifier(
        ...     5,
        ...     {name: SmallCNN(1, (4, 8), rngs=rngs) for name in ("rgb", "depth")},
        ...     rngs=rngs,
        ... )
        >>> images = jnp.ones((2, 8, 8, 1))
        >>> logits = model({"rgb": images, "depth": images})
        >>> {name: z.shape for name, z in logits.items()}
        {'joint': (2, 5), 'rgb': (2, 5), 'depth': (2, 5)}
    """

    def __init__(
        self,
        num_classes: int,
        encoders: Mapping[str, Encoder],
        *,
        fusion: Fusion | None = None,
        interaction: Interaction | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not encoders or "joint" in encoders:
            raise ValueError(
                f"{type(self).__name__}: encoders must name at least one modality, "
                f"none of them 'joint', got {list(encoders)}."
            )
        self.modalities = tuple(encoders)
        for name, encoder in encoders.items():
            setattr(self, f"{name}_encoder", encoder)
        widths = [encoder.out_features for encoder in encoders.values()]
        if fusion is None:
            seen = interaction and interaction.joint_widths
            fusion = ConcatFusion(
                seen or widths, num_classes, param_dtype=param_dtype, rngs=rngs
            )
        self.fusion = fusion
        self.interaction = interaction
        for name, width in zip(encoders, widths, strict=True):
            head = nnx.Linear(
                width,
                num_classes,
                kernel_init=xavier_normal,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            setattr(self, f"{name}_head", head)

    @staticmethod
    def modality_of(attribute: str) -> str | None:
        """The modality whose encoder that attribute is; `None`: it is no encoder."""
        modality = attribute.removesuffix("_encoder")
        return modality if modality != attribute else None

    def features(
        self, inputs: Mapping[str, jax.Array]
    ) -> tuple[dict[str, jax.Array], list[jax.Array]]:
        """What the heads see.

        Args:
            inputs: modality -> what its encoder takes.

        Returns:
            Modality -> features [B, out_features], and the arrays that the fusion sees.

        Raises:
            ValueError: if `inputs` has other names than the model's modalities.
        """
        if set(inputs) != set(self.modalities):
            raise ValueError(
                f"{type(self).__name__}: inputs must have the names "
                f"{list(self.modalities)}, got {list(inputs)}."
            )
        encoders = [getattr(self, f"{name}_encoder") for name in self.modalities]
        values = [inputs[name] for name in self.modalities]
        if self.interaction is None:
            own = [f(x) for f, x in zip(encoders, values, strict=True)]
            seen = own
        else:
            own, seen = self.interaction(encoders, values)
        return dict(zip(self.modalities, own, strict=True)), seen

    def outputs(
        self, inputs: Mapping[str, jax.Array], *, detach_unimodal: bool = False
    ) -> Outputs:
        """Logits, features, and what each modality adds to the joint logits.

        Args:
            inputs: modality -> what its encoder takes.
            detach_unimodal: whether the unimodal heads are probes: they see the
                features, but their losses do not reach the encoders.

        Returns:
            The outputs; logits are float32 or wider.

        Raises:
            ValueError: if an encoder or the fusion refuses its input, or `inputs` has
                other names than the model's modalities.
        """
        features, seen = self.features(inputs)
        logits = {"joint": self.fusion(seen)}
        for name, x in features.items():
            probed = jax.lax.stop_gradient(x) if detach_unimodal else x
            logits[name] = getattr(self, f"{name}_head")(probed)
        parts = {}
        additive = self.interaction is None or self.interaction.joint_widths is None
        if additive and hasattr(self.fusion, "parts"):
            parts = dict(zip(self.modalities, self.fusion.parts(seen), strict=True))
        return Outputs(wide(logits), features, wide(parts))

    def __call__(
        self, inputs: Mapping[str, jax.Array], *, detach_unimodal: bool = False
    ) -> dict[str, jax.Array]:
        """Logits of all objectives: those of `outputs`."""
        return self.outputs(inputs, detach_unimodal=detach_unimodal).logits


def wide(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """In float32 or wider, in the same order."""
    return {
        name: z.astype(jnp.promote_types(z.dtype, jnp.float32))
        for name, z in arrays.items()
    }
