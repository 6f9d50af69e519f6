"""What is said of a method."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["rule", "baseline", "control"]
HEADINGS: dict[Kind, str] = {
    "rule": "rules: what becomes of several gradients or losses",
    "baseline": "baselines against modality imbalance",
    "control": "controls: what a method has to beat",
}


class Described(NamedTuple):
    """What is said of a method.

    Attributes:
      kind: what it is for.
      words: a word or two.
      line: what it does.
      paper: name, venue and year; "" where there is none.
      needs: what there must be: losses, the Jacobian, two modalities, ...
      note: what else is to be known: it has a state, or random numbers; or for which
        values of its arguments the promises hold.
      documented: the public name, after ``mmpareto_jax.``, whose docstring has the
        reference in full; "" where there is none.
    """

    kind: Kind
    words: str
    line: str
    paper: str = ""
    needs: str = ""
    note: str = ""
    documented: str = ""
