"""Every method in a few words, in a sentence, and where it is from."""

from __future__ import annotations

from mmpareto_jax.training._choices import MethodName
from mmpareto_jax.training._described.described import Described
from mmpareto_jax.training._described.rules import RULES


def _baseline(
    documented: str,
    words: str,
    line: str,
    paper: str,
    *,
    needs: str = "",
    note: str = "",
) -> Described:
    return Described("baseline", words, line, paper, needs, note, documented)


_OTHERS: dict[MethodName, Described] = {
    "ogm": _baseline(
        "training.baselines.ogm",
        "leader slowed",
        "the leading encoder learns less",
        "OGM, CVPR 2022",
        needs="a fusion that adds: concat, sum",
    ),
    "ogm-ge": _baseline(
        "training.baselines.ogm",
        "and noise",
        "ogm, with noise that generalises",
        "OGM-GE, CVPR 2022",
        needs="a fusion that adds: concat, sum",
        note="random",
    ),
    "agm": _baseline(
        "training.baselines.agm",
        "by log scores",
        "each encoder by its lead or lag",
        "AGM, ICCV 2023",
        needs="a fusion that adds: concat, sum",
    ),
    "pmr": _baseline(
        "training.baselines.prototype_loss",
        "prototypes",
        "the lagging modality is pulled to its class means",
        "PMR, CVPR 2023",
        note="state",
    ),
    "mmcosine": _baseline(
        "models.CosineFusion",
        "cosine heads",
        "modalities vote by angle, not norm",
        "MMCosine, ICASSP 2023",
        note="its own fusion: cosine",
    ),
    "greedy": _baseline(
        "training.baselines.watch",
        "lagging alone",
        "the branch that lags is trained alone for some steps",
        "Greedy, ICML 2022",
        needs="two modalities",
        note="its own fusion: mmtm",
    ),
    "g-blending": _baseline(
        "training.baselines.blend",
        "by overfitting",
        "losses weighted by how they generalise for what they overfit",
        "G-Blending, CVPR 2020",
        note="state",
    ),
    "relearning": _baseline(
        "training.baselines.soft_reset",
        "soft resets",
        "encoders go back towards their start, every five epochs",
        "Re-learning, ECCV 2024",
        note="state; random",
    ),
    "joint": Described(
        "control",
        "no unimodal loss",
        "the joint loss alone trains; heads only watch",
        needs="several modalities",
    ),
    "single-task": Described(
        "control",
        "a model each",
        "a separate model for each task, for Δp",
        needs="several tasks",
    ),
    "uniform-gamma": Described(
        "control", "plain sum × γ", "the plain sum, the encoders' learning rate times γ"
    ),
}

METHODS = RULES | _OTHERS
