"""Data sources and the input pipeline.

Names of splits and seeds come in, numpy's arrays and batches go out; nothing here knows
a model. It imports numpy, grain and scikit-learn's digits, and of the package the names
in ``_published`` alone. ``data.sources`` decodes published data sets; it is imported by
its name.
"""

from ._augment import augmentation as augmentation
from ._augment import crop_box as crop_box
from ._augment import middle_frames as middle_frames
from ._augment import random_frames as random_frames
from ._augment_dense import dense_augmentation as dense_augmentation
from ._av_digits import AVClips as AVClips
from ._av_digits import AVDigits as AVDigits
from ._av_digits import load_av_clips as load_av_clips
from ._av_digits import load_av_digits as load_av_digits
from ._digit_tasks import DIGIT_TASKS as DIGIT_TASKS
from ._digit_tasks import DigitTasks as DigitTasks
from ._digit_tasks import load_digit_tasks as load_digit_tasks
from ._examples import Examples as Examples
from ._examples import FunctionExamples as FunctionExamples
from ._examples import Source as Source
from ._examples import Transform as Transform
from ._examples import as_examples as as_examples
from ._examples import as_transform as as_transform
from ._examples import column as column
from ._examples import first_examples as first_examples
from ._features import hz_to_mel as hz_to_mel
from ._features import log_mel as log_mel
from ._features import mel_filterbank as mel_filterbank
from ._features import power_spectrogram as power_spectrogram
from ._features import standardise as standardise
from ._multi_digits import MultiDigits as MultiDigits
from ._multi_digits import load_multi_digits as load_multi_digits
from ._pipeline import eval_batches as eval_batches
from ._pipeline import train_batches as train_batches
from ._random_splits import random_splits as random_splits
from ._scenes import SCENE_CLASSES as SCENE_CLASSES
from ._scenes import Scenes as Scenes
from ._scenes import load_scenes as load_scenes
from ._split import Split as Split
