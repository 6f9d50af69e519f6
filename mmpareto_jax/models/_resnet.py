"""ResNet-18 encoder with PyTorch's conventions."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from mmpareto_jax.models._layers import (
    batch_norm,
    check_input,
    conv,
    global_mean,
    per_frame,
)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut, after He et al. (2016).

    Maps [N, H, W, in_features] to [N, ceil(H / stride), ceil(W / stride),
    out_features]. The shortcut is a strided 1x1 convolution with BatchNorm where the
    shape changes (option B), else the identity.

    Args:
        in_features: channels in.
        out_features: channels out.
        stride: stride of the first convolution.
        dtype: type of the computation; `None` promotes input and parameters.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        stride: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        def conv_bn(features: int, size: int, step: int) -> list[nnx.Module]:
            return [
                conv(
                    features,
                    out_features,
                    size,
                    stride=step,
                    dtype=dtype,
                    param_dtype=param_dtype,
                    rngs=rngs,
                ),
                batch_norm(
                    out_features, dtype=dtype, param_dtype=param_dtype, rngs=rngs
                ),
            ]

        # The attributes carry torchvision's names: `load_torch` relies on it.
        self.conv1, self.bn1 = conv_bn(in_features, 3, stride)
        self.conv2, self.bn2 = conv_bn(out_features, 3, 1)
        reshapes = stride != 1 or in_features != out_features
        self.downsample = nnx.List(conv_bn(in_features, 1, stride) if reshapes else [])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the block.

        Args:
            x: [N, H, W, in_features].

        Returns:
            [N, ceil(H / stride), ceil(W / stride), out_features].
        """
        shortcut = x
        for layer in self.downsample:
            shortcut = layer(shortcut)
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return nnx.relu(x + shortcut)


class ResNet18(nnx.Module):
    r"""ResNet-18 without its classifier: images or frames to 512 features.

    The encoder of the official MMPareto and OGM-GE networks, with any number of input
    channels: a 7x7 convolution of stride 2, BatchNorm, ReLU, a 3x3 max-pool of stride
    2, then four stages of two basic blocks (64, 128, 256, 512 channels). Padding is
    PyTorch's, explicit and symmetric, also where the stride is 2. Frames are folded
    into the batch, and the features are the mean over all frames and positions:

    .. math::
        f_{bc} = \frac{1}{T h w} \sum_{tij} F_{btijc}.

    Convolutions start from He's normal initialisation over the fan out, BatchNorm from
    scale 1 and bias 0, as in the official code. BatchNorm is `flax.nnx.BatchNorm` with
    torch's constants (momentum 0.9 in flax's reading, epsilon 1e-5, two-pass variance);
    its running variance is the biased batch variance, where torch stores the unbiased
    one, larger by n / (n - 1) for n positions.

    Args:
        in_channels: channels of the input.
        dtype: type of the computation, `jnp.bfloat16` for mixed precision; `None`
            promotes input and parameters. BatchNorm's statistics and the features are
            never narrower than float32.
        param_dtype: type of the parameters.
        rngs: gives the `params` keys.

    Attributes:
        in_channels: channels of the input.
        out_features: 512.
        stage_widths: (64, 128, 256, 512).

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from mmpareto_jax.models import ResNet18
        >>> encoder = nnx.eval_shape(lambda: ResNet18(3, rngs=nnx.Rngs(0)))
        >>> frames = jnp.ones((2, 3, 64, 48, 3))  # [B, T, H, W, C]
        >>> nnx.eval_shape(lambda m, x: m(x), encoder, frames).shape
        (2, 512)
        >>> nnx.eval_shape(lambda m, x: m.feature_map(x), encoder, frames).shape
        (2, 3, 2, 2, 512)

    References:
        He et al., `Deep Residual Learning for Image Recognition
        <https://arxiv.org/abs/1512.03385>`_, CVPR 2016.

        Peng et al., `Balanced Multimodal Learning via On-the-fly Gradient Modulation
        <https://arxiv.org/abs/2203.15332>`_, CVPR 2022.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.in_channels = in_channels
        self.out_features = 512
        self.stage_widths: tuple[int, ...] = (64, 128, 256, 512)

        def stage(
            in_features: int, out_features: int, stride: int
        ) -> nnx.List[BasicBlock]:
            return nnx.List(
                BasicBlock(
                    out_features if block else in_features,
                    out_features,
                    1 if block else stride,
                    dtype=dtype,
                    param_dtype=param_dtype,
                    rngs=rngs,
                )
                for block in range(2)
            )

        self.conv1 = conv(
            in_channels,
            64,
            7,
            stride=2,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.bn1 = batch_norm(64, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.layer1 = stage(64, 64, 1)
        self.layer2 = stage(64, 128, 2)
        self.layer3 = stage(128, 256, 2)
        self.layer4 = stage(256, 512, 2)

    def embed(self, x: jax.Array) -> jax.Array:
        """What comes before the four stages.

        Args:
            x: images [B, H, W, in_channels] or frames [B, T, H, W, in_channels].

        Returns:
            [B, h, w, 64] or [B, T, h, w, 64], with h = ceil(H / 4) and w alike.

        Raises:
            ValueError: if the rank or the number of channels is another.
        """
        check_input(x, self.in_channels, "ResNet18")

        def stem(x: jax.Array) -> jax.Array:
            x = nnx.relu(self.bn1(self.conv1(x)))
            y: jax.Array = nnx.max_pool(
                x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1))
            )
            return y

        return per_frame(stem, x)

    def stage(self, index: int, x: jax.Array) -> jax.Array:
        """Apply stage 0, 1, 2 or 3.

        Args:
            index: which.
            x: the map before it, [B, h, w, C] or [B, T, h, w, C].

        Returns:
            The map after it, with `stage_widths[index]` channels.
        """
        blocks = (self.layer1, self.layer2, self.layer3, self.layer4)[index]
        for block in blocks:
            x = per_frame(block, x)
        return x

    def pool(self, x: jax.Array) -> jax.Array:
        """Mean over frames and positions: to [B, 512], float32 or wider."""
        return global_mean(x)

    def feature_map(self, x: jax.Array) -> jax.Array:
        """The last stage before pooling.

        Args:
            x: images [B, H, W, in_channels] or frames [B, T, H, W, in_channels].

        Returns:
            [B, h, w, 512] or [B, T, h, w, 512], with h = ceil(H / 32) and w alike.

        Raises:
            ValueError: if the rank or the number of channels is another.
        """
        x = self.embed(x)
        for index in range(len(self.stage_widths)):
            x = self.stage(index, x)
        return x

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of images or frames.

        Args:
            x: images [B, H, W, in_channels] or frames [B, T, H, W, in_channels].

        Returns:
            [B, 512], float32 or wider.

        Raises:
            ValueError: if the rank or the number of channels is another.
        """
        return self.pool(self.feature_map(x))
