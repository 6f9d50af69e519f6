"""Reference models in Flax NNX: encoders, fusions, multimodal classifiers.

Sizes and random keys come in, modules go out, which map arrays to logits and features;
they know no loss, no data and no rule. It imports flax and jax, and no other room.
"""

from mmpareto_jax.models._audio_visual import AVClassifier as AVClassifier
from mmpareto_jax.models._bottleneck import BottleneckTokens as BottleneckTokens
from mmpareto_jax.models._centralnet import CentralNet as CentralNet
from mmpareto_jax.models._cnn import SmallCNN as SmallCNN
from mmpareto_jax.models._fusion import ConcatFusion as ConcatFusion
from mmpareto_jax.models._fusion import CosineFusion as CosineFusion
from mmpareto_jax.models._fusion import SumFusion as SumFusion
from mmpareto_jax.models._lenet import LeNet as LeNet
from mmpareto_jax.models._mlp import MLP as MLP
from mmpareto_jax.models._mmtm import MMTM as MMTM
from mmpareto_jax.models._mmtm import Control as Control
from mmpareto_jax.models._modulation import FiLMFusion as FiLMFusion
from mmpareto_jax.models._modulation import GatedFusion as GatedFusion
from mmpareto_jax.models._multimodal import Encoder as Encoder
from mmpareto_jax.models._multimodal import Fusion as Fusion
from mmpareto_jax.models._multimodal import Interaction as Interaction
from mmpareto_jax.models._multimodal import MultimodalClassifier as MultimodalClassifier
from mmpareto_jax.models._multimodal import Outputs as Outputs
from mmpareto_jax.models._multimodal import StagedEncoder as StagedEncoder
from mmpareto_jax.models._multitask import DenseHead as DenseHead
from mmpareto_jax.models._multitask import MultitaskModel as MultitaskModel
from mmpareto_jax.models._multitask import Sharing as Sharing
from mmpareto_jax.models._resnet import ResNet18 as ResNet18
from mmpareto_jax.models._segnet import SegNet as SegNet
from mmpareto_jax.models._sharing import MTAN as MTAN
from mmpareto_jax.models._sharing import CrossStitch as CrossStitch
from mmpareto_jax.models._sharing import HardSharing as HardSharing
from mmpareto_jax.models._sharing import Separate as Separate
from mmpareto_jax.models._temporal import TemporalCNN as TemporalCNN
from mmpareto_jax.models._torch import load_torch as load_torch
from mmpareto_jax.models._torch import to_torch as to_torch
from mmpareto_jax.models._transformer import PatchTransformer as PatchTransformer
