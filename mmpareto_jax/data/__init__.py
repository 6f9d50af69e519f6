"""Data sources and the input pipeline."""

from ._augment import augmentation as augmentation
from ._augment import crop_box as crop_box
from ._augment import middle_frames as middle_frames
from ._augment import random_frames as random_frames
from ._av_digits import AVClips as AVClips
from ._av_digits import AVDigits as AVDigits
from ._av_digits import Split as Split
from ._av_digits import load_av_clips as load_av_clips
from ._av_digits import load_av_digits as load_av_digits
from ._features import hz_to_mel as hz_to_mel
from ._features import log_mel as log_mel
from ._features import mel_filterbank as mel_filterbank
from ._features import power_spectrogram as power_spectrogram
from ._features import standardise as standardise
from ._pipeline import eval_batches as eval_batches
from ._pipeline import train_batches as train_batches
