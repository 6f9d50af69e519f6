"""Cityscapes: street images with segmentation and inverse depth.

Raw layout, as preprocessed by Liu et al. and used by most of the multi-task
literature: ``<train|val>/<image|label_7|label_19|depth>/<number>.npy`` of 2,975 and 500
images of 128 × 256, channels last; in some copies the folder is just ``label``.

References:
  Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR
  2016; Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019.
"""

from __future__ import annotations

from pathlib import Path

from mmpareto_jax.data.sources._dense import dense_plan
from mmpareto_jax.data.sources._plan import Plan

CLASSES = {
    7: ("flat", "construction", "object", "nature", "sky", "human", "vehicle"),
    19: (
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
}


def plan(raw: Path, *, classes: int = 7, seed: int = 0) -> Plan:
    """Arrays "image", "segmentation" and "depth".

    * image: uint8 [H, W, 3]: the files' values in [0, 1] times 255, rounded, which is
      off by 1/510 at most;
    * segmentation: int8 [H, W], 7 or 19 classes, -1 where there is no label;
    * depth: float32 [H, W, 1], **inverse** depth (the disparity, scaled), 0 where it
      is unknown or infinite.

    ``val`` is the test split; a tenth of ``train`` validates.

    Args:
      raw: the directory.
      classes: 7 or 19.
      seed: of the validation part.

    Raises:
      ValueError: the directory has no such files, or ``classes`` is another number.
    """
    if classes not in CLASSES:
        raise ValueError(f"cityscapes: classes: expected 7 or 19, got {classes}")
    own = f"label_{classes}"
    # Copies with a single kind of labels name no number; they have the 7 classes.
    label = own if classes != 7 or (raw / "train" / own).is_dir() else "label"
    folders = {"image": "image", "segmentation": label, "depth": "depth"}
    options = {"classes": classes, "seed": seed}
    return dense_plan("cityscapes", raw, CLASSES[classes], folders, options)
