"""The data of every task in a few sentences."""

from __future__ import annotations

from typing import NamedTuple

from mmpareto_jax.training._choices import TaskName


class Dataset(NamedTuple):
    """What is said of the data of a task.

    Attributes:
      line: what they are.
      sizes: of training, validation and test; of published data as they are published.
      raw: the layout of the published files; "" where the data are in the package.
      paper: name, venue and year.
    """

    line: str
    sizes: str
    raw: str = ""
    paper: str = ""


DATASETS: dict[TaskName, Dataset] = {
    "av-digits": Dataset(
        "a spoken and a handwritten digit of one class, noisy; 10 classes",
        "1,000 / 400 / 400",
    ),
    "multi-digits": Dataset(
        "two handwritten digits on one image, the right one noisy; two tasks. Or, with "
        "--data, those of MNIST's IDX files",
        "2,000 / 600 / 1,000",
        paper="as MultiMNIST: Sabour et al., NeurIPS 2017",
    ),
    "digit-tasks": Dataset(
        "up to eight questions of unequal difficulty about one digit",
        "2,000 / 1,000 / 2,000",
    ),
    "scenes": Dataset(
        "segmentation, depth and normals of small rendered rooms",
        "500 / 400 / 800",
    ),
    "crema-d": Dataset(
        "acted emotions, voice and face; 6 classes",
        "7,442 clips of 91 actors; no actor is in two splits",
        "AudioWAV/*.wav and VideoFlash/*.flv",
        "Cao et al., IEEE Trans. Affective Computing 2014",
    ),
    "kinetics-sounds": Dataset(
        "actions that can be seen and heard; classes by their directories",
        "about 19,000 clips of 34 classes, or a copy's own",
        "<train|val|test>/<class>/*.mp4",
        "Arandjelović & Zisserman, ICCV 2017",
    ),
    "colored-digits": Dataset(
        "a gray and a coloured digit; the colour tells the class in training only",
        "those of MNIST; of scikit-learn 1,797 images in all",
        "MNIST's IDX files, or no --raw: the digits of scikit-learn",
    ),
    "arrays": Dataset(
        "your own modalities, any number of them, and a label",
        "whatever the arrays hold",
        "an .npz file or a directory of .npy files, the label and each modality in one",
    ),
    "modelnet40": Dataset(
        "the front and the rear view of an object; 40 classes",
        "9,843 objects to train, of which a tenth validates; 2,468 to test",
        "<class>/<train|test>/*.obj.*.png, twelve views of each object",
        "Wu et al., CVPR 2015",
    ),
    "ucf-101": Dataset(
        "actions, RGB frames and optical flow; 101 classes",
        "13,320 clips; the splits of the lists, a tenth of the groups validates",
        "videos/<class>/*.avi, flow/<u|v>/<clip>/*.jpg, trainlist01.txt, "
        "testlist01.txt",
        "Soomro et al., 2012",
    ),
    "nyuv2": Dataset(
        "indoor images: segmentation in 13 classes, depth, surface normals",
        "795 images to train, of which a tenth validates; 654 to test",
        "<train|val>/<image|label|depth|normal>/*.npy",
        "Silberman et al., ECCV 2012",
    ),
    "cityscapes": Dataset(
        "street images: segmentation in 7 or 19 classes, inverse depth",
        "2,975 images to train, of which a tenth validates; 500 to test",
        "<train|val>/<image|label_7|label_19|depth>/*.npy",
        "Cordts et al., CVPR 2016",
    ),
}
