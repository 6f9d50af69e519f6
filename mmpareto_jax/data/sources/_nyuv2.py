"""NYUv2: indoor images with segmentation, depth and surface normals.

Raw layout, as preprocessed by Liu et al. and used by most of the multi-task
literature: ``<train|val>/<image|label|depth|normal>/<number>.npy`` of 795 and 654
images of 288 × 384, channels last.

References:
  Silberman et al., Indoor Segmentation and Support Inference from RGBD Images, ECCV
  2012; Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019.
"""

from __future__ import annotations

from pathlib import Path

from mmpareto_jax.data.sources._dense import dense_plan
from mmpareto_jax.data.sources._plan import Plan

CLASSES = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)


def plan(raw: Path, *, seed: int = 0) -> Plan:
    """Arrays "image", "segmentation", "depth" and "normal".

    * image: uint8 [H, W, 3]: the files' values in [0, 1] times 255, rounded, which is
      off by 1/510 at most;
    * segmentation: int8 [H, W], 13 classes, -1 where there is no label;
    * depth: float32 [H, W, 1], metres, 0 where it is unknown;
    * normal: float32 [H, W, 3], made unit vectors, zeros where unknown; the first
      component is horizontal.

    ``val`` is the test split. A tenth of ``train`` validates: of the images, as the
    files do not tell the scenes, so that a scene can be in both.

    Args:
      raw: the directory.
      seed: of the validation part.

    Raises:
      ValueError: the directory has no such files.
    """
    names = ("depth", "normal")
    folders = {"image": "image", "segmentation": "label"} | {x: x for x in names}
    return dense_plan("nyuv2", raw, CLASSES, folders, {"seed": seed})
