"""What each method promises, as data: the tests hold it, and the README shows it.

``python tests/weightings/promises.py`` prints the README's table.
"""

from typing import NamedTuple

import mmpareto_jax as mmp

W = mmp.weightings


class Method(NamedTuple):
    """A rule and what it promises, for any gradients from its first state."""

    rule: object
    paper: str
    descends: bool = False  # <g_k, d> >= 0 for all k
    linear: bool = False  # d is linear in the lengths of the gradients
    scales: bool = True  # gradients times c give d times c
    symmetric: bool = True  # d does not depend on the objectives' order
    note: str = ""
    num: int = 4  # objectives, in its tests


METHODS = {
    "uniform": Method(W.uniform(), "the plain sum", linear=True),
    "mean": Method(W.mean(), "the average", linear=True),
    "constant": Method(
        W.constant([1.0, 0.5, 0.2, 2.0]), "", linear=True, symmetric=False
    ),
    "random": Method(
        W.random(), "RLW, TMLR 2022", linear=True, symmetric=False, note="random"
    ),
    "mgda": Method(W.mgda(), "MGDA, 2012; NeurIPS 2018", descends=True),
    "mmpareto": Method(W.mmpareto(), "MMPareto, ICML 2024", descends=True),
    "normalized_sum": Method(W.normalized_sum(), "equal lengths"),
    "pcgrad": Method(
        W.pcgrad(), "PCGrad, NeurIPS 2020", linear=True, symmetric=False, note="random"
    ),
    "gradvac": Method(
        W.gradvac(),
        "GradVac, ICLR 2021",
        linear=True,
        symmetric=False,
        note="random, state",
    ),
    "cagrad": Method(
        W.cagrad(0.5), "CAGrad, NeurIPS 2021", note="here c=0.5; descends if c ≥ 1"
    ),
    "imtl_g": Method(W.imtl_g(), "IMTL-G, ICLR 2021"),
    "nash_mtl": Method(
        W.nash_mtl(max_norm=0),
        "Nash-MTL, ICML 2022",
        descends=True,
        note="state; here max_norm=0",
    ),
    "aligned_mtl": Method(W.aligned_mtl(), "Aligned-MTL, CVPR 2023"),
    "mean_norm": Method(
        W.mean_norm(), "weights of PINN code, 2023", linear=True, note="state"
    ),
    "dcgd": Method(
        W.dcgd(),
        "DCGD, NeurIPS 2024",
        descends=True,
        linear=True,
        note="two objectives for each parameter",
        num=2,
    ),
    "pcd": Method(
        W.pcd(),
        "PCD, TMLR 2026",
        linear=True,
        scales=False,
        symmetric=False,
        note="state",
    ),
    "upgrad": Method(W.upgrad(), "UPGrad, 2024", descends=True, linear=True),
    "dualproj": Method(W.dualproj(), "GEM, NeurIPS 2017", descends=True),
    "config": Method(
        W.config(),
        "ConFIG, ICLR 2025",
        linear=True,
        note="descends if the gradients are independent",
    ),
    "fairgrad": Method(
        W.fairgrad(2.0),
        "FairGrad, ICML 2024",
        descends=True,
        scales=False,
        note="here alpha=2",
    ),
    "db_mtl": Method(W.db_mtl(), "DB-MTL, 2023", note="losses, state"),
    "moco": Method(W.moco(), "MoCo, ICLR 2023", scales=False, note="losses, state"),
    "excess_mtl": Method(
        W.excess_mtl(), "ExcessMTL, ICML 2024", linear=True, note="state"
    ),
    "modo": Method(W.modo(), "MoDo, NeurIPS 2023", scales=False, note="state"),
    "sdmgrad": Method(W.sdmgrad(), "SDMGrad, NeurIPS 2023", note="state"),
    "gradnorm": Method(
        W.gradnorm(), "GradNorm, ICML 2018", linear=True, note="losses, state"
    ),
    "metabalance": Method(
        W.metabalance(),
        "MetaBalance, WWW 2022",
        linear=True,
        symmetric=False,
        note="state",
    ),
    "graddrop": Method(W.graddrop(), "GradDrop, NeurIPS 2020", note="random, Jacobian"),
    "trimmed_mean": Method(W.trimmed_mean(), "ICML 2018", note="Jacobian"),
    "krum": Method(W.krum(), "NeurIPS 2017"),
    "uncertainty": Method(
        W.uncertainty(), "UW, CVPR 2018", linear=True, note="losses, state"
    ),
    "dwa": Method(W.dwa(), "DWA, CVPR 2019", linear=True, note="losses, state"),
    "geometric_mean": Method(
        W.geometric_mean(), "GLS, CVPR-W 2019", linear=True, note="losses"
    ),
    "stch": Method(W.stch(), "STCH, ICML 2024", linear=True, note="losses"),
    "cosmos": Method(W.cosmos(), "COSMOS, ICDM 2021", linear=True, note="losses"),
    "pbi": Method(W.pbi(), "PBI, 2007", linear=True, note="losses"),
    "soft_adapt": Method(
        W.soft_adapt(), "SoftAdapt, 2019", linear=True, note="losses, state"
    ),
    "relobralo": Method(
        W.relobralo(), "ReLoBRaLo, 2021", linear=True, note="losses, random, state"
    ),
    "famo": Method(W.famo(), "FAMO, NeurIPS 2023", linear=True, note="losses, state"),
    "imtl_l": Method(
        W.imtl_l(), "IMTL-L, ICLR 2021", linear=True, note="losses, state"
    ),
    "rlw": Method(
        W.rlw(),
        "RLW, TMLR 2022",
        linear=True,
        symmetric=False,
        note="losses, random",
    ),
}


def table() -> str:
    """The README's table, in Markdown."""

    def mark(yes: bool) -> str:
        return "✓" if yes else ""

    lines = [
        "| `mmp.weightings.` | method | never ascends | linear in each length | "
        "scale equivariant | any order | needs, has |",
        "|---|---|:-:|:-:|:-:|:-:|---|",
    ]
    for name, m in METHODS.items():
        marks = " | ".join(map(mark, (m.descends, m.linear, m.scales, m.symmetric)))
        lines.append(f"| `{name}` | {m.paper} | {marks} | {m.note} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
