"""The data of every task in a few sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mmpareto_jax.training._choices import TaskName


class Dataset(NamedTuple):
    """What is said of the data of a task.

    Attributes:
      line: what they are.
      arrays: what an example has: name -> dtype, shape and meaning; C and S are
        chosen by options, H and W are those of the files.
      sizes: of training, validation and test; of published data as they are published.
      raw: the layout of the published files; "" where the data are in the package.
      paper: name, venue and year.
    """

    line: str
    arrays: Mapping[str, str]
    sizes: str
    raw: str = ""
    paper: str = ""


_LABEL = {"label": "int32: the class"}
_IMAGES = {"image": "uint8 [H, W, 3]: RGB", "segmentation": "int8 [H, W]: -1 is none"}

DATASETS: dict[TaskName, Dataset] = {
    "av-digits": Dataset(
        "a spoken and a handwritten digit of one class, noisy; 10 classes",
        {
            "audio": "float32 [32, 32, 1]: log-mel spectrogram",
            "visual": "float32 [1, 16, 16, 1]: image",
            **_LABEL,
        },
        "1,000 / 400 / 400",
    ),
    "multi-digits": Dataset(
        "two handwritten digits on one image, the right one noisy; two tasks. Or, with "
        "--data, those of MNIST's IDX files",
        {
            "image": "float32 [H, W, 1]: 12 by 12, of MNIST 36 by 36",
            "left": "int32: its digit",
            "right": "int32: its digit",
        },
        "2,000 / 600 / 1,000",
        paper="as MultiMNIST: Sabour et al., NeurIPS 2017",
    ),
    "digit-tasks": Dataset(
        "up to eight questions of unequal difficulty about one digit",
        {
            "image": "float32 [16, 16, 1]: a digit on gray",
            "digit": "int32: which one, of 10",
            "position": "int32: of its centre, of 4 corners",
            "size": "int32: of 3",
            "rotation": "int32: of 4",
            "parity": "int32: even or odd",
            "brightness": "int32: of the background, of 3",
            "polarity": "int32: whether the digit is darker than it",
            "high": "int32: whether it is 5 or more",
        },
        "2,000 / 1,000 / 2,000",
    ),
    "scenes": Dataset(
        "segmentation, depth and normals of small rendered rooms",
        {
            "image": "float32 [32, 32, 3]: standardised RGB",
            "segmentation": "int32 [32, 32]: -1 is none",
            "depth": "float32 [32, 32, 1]: metres, 0 is none",
            "normal": "float32 [32, 32, 3]: unit vectors, 0 is none",
        },
        "500 / 400 / 800",
    ),
    "crema-d": Dataset(
        "acted emotions, voice and face; 6 classes",
        {
            "audio": "float16 [257, 188, 1]: log spectrogram of 3 s",
            "visual": "uint8 [2, C, S, S, 3]: RGB frames of both halves, by "
            "--candidates and --size",
            **_LABEL,
        },
        "7,442 clips of 91 actors; no actor is in two splits",
        "AudioWAV/*.wav and VideoFlash/*.flv",
        "Cao et al., IEEE Trans. Affective Computing 2014",
    ),
    "kinetics-sounds": Dataset(
        "actions that can be seen and heard; classes by their directories",
        {
            "audio": "float16 [128, 1024, 1]: filter banks of 10 s",
            "visual": "uint8 [3, C, S, S, 3]: RGB frames of all thirds, by "
            "--candidates and --size",
            **_LABEL,
        },
        "about 19,000 clips of 34 classes, or a copy's own",
        "<train|val|test>/<class>/*.mp4",
        "Arandjelović & Zisserman, ICCV 2017",
    ),
    "colored-digits": Dataset(
        "a gray and a coloured digit; the colour tells the class in training only",
        {
            "gray": "uint8 [28, 28, 1]: the digit",
            "color": "uint8 [28, 28, 3]: the same digit in a colour",
            **_LABEL,
        },
        "those of MNIST; of scikit-learn 1,797 images in all",
        "MNIST's IDX files, or no --raw: the digits of scikit-learn",
    ),
    "arrays": Dataset(
        "your own modalities, any number of them, and a label",
        {"NAME": "float or uint8 [...]: a modality of that name", **_LABEL},
        "whatever the arrays hold",
        "an .npz file or a directory of .npy files: label, each modality by its name, "
        "and optional id, group and classes",
    ),
    "modelnet40": Dataset(
        "the front and the rear view of an object; 40 classes",
        {
            "front": "uint8 [S, S, 3]: RGB, by --size",
            "rear": "uint8 [S, S, 3]: RGB, by --size",
            **_LABEL,
        },
        "9,843 objects to train, of which a tenth validates; 2,468 to test",
        "<class>/<train|test>/*.obj.*.png, twelve views of each object",
        "Wu et al., CVPR 2015",
    ),
    "ucf-101": Dataset(
        "actions, RGB frames and optical flow; 101 classes",
        {
            "rgb": "uint8 [3, 1, S, S, 3]: frames of all thirds, by --size",
            "flow": "uint8 [3, 1, S, S, 2]: horizontal and vertical, there",
            **_LABEL,
        },
        "13,320 clips; the splits of the lists, a tenth of the groups validates",
        "videos/<class>/*.avi, flow/<u|v>/<clip>/*.jpg, trainlist01.txt, "
        "testlist01.txt",
        "Soomro et al., 2012",
    ),
    "nyuv2": Dataset(
        "indoor images: segmentation in 13 classes, depth, surface normals",
        {
            **_IMAGES,
            "depth": "float32 [H, W, 1]: metres, 0 is none",
            "normal": "float32 [H, W, 3]: unit vectors, 0 is none",
        },
        "795 images to train, of which a tenth validates; 654 to test",
        "<train|val>/<image|label|depth|normal>/*.npy",
        "Silberman et al., ECCV 2012",
    ),
    "cityscapes": Dataset(
        "street images: segmentation in 7 or 19 classes, inverse depth",
        {**_IMAGES, "depth": "float32 [H, W, 1]: inverse, 0 is none"},
        "2,975 images to train, of which a tenth validates; 500 to test",
        "<train|val>/<image|label_7|label_19|depth>/*.npy",
        "Cordts et al., CVPR 2016",
    ),
}
