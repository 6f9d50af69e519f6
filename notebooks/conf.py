"""The documentation site: ``sphinx-build -W --keep-going notebooks build/site``.

This folder is the source: the notebooks are pages as they are, unexecuted; README,
changelog and contributing guide stand in for the stubs named in ``PAGES``. Nothing is
fetched at build time, and mathematics is MathML, so that pages need no script for it.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.inspect import signature

from mmpareto_jax import __version__

ROOT = Path(__file__).parent.parent
PAGES = {
    "index": "README.md",
    "docs/data": "mmpareto_jax/data/av_digits/README.md",
    "docs/contributing": "CONTRIBUTING.md",
    "docs/changelog": "CHANGELOG.md",
}

project = "mmpareto_jax"
copyright = "The mmpareto_jax authors"  # noqa: A001
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
extensions += ["sphinx.ext.autosummary", "sphinx.ext.viewcode"]
exclude_patterns = ["images", "**.ipynb_checkpoints"]
nitpicky = True  # a link to a name that is not there is an error
# Names of other libraries, and private names in our signatures, have no page here.
nitpick_ignore_regex = [(r"py:.*", r"(?!mmpareto_jax\.)\S+"), (r"py:.*", r".*\._.*")]
default_role = "code"

nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 72
napoleon_use_ivar = True
napoleon_attr_annotations = False  # they are in the signature, and `str_` is no link
napoleon_use_rtype = False

html_theme = "furo"
pygments_style, pygments_dark_style = "friendly", "monokai"
html_title = f"mmpareto_jax {version}"
html_math_renderer = "mathml"
html_static_path = ["docs/static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {
        "color-brand-primary": "#0072B2",
        "color-brand-content": "#0072B2",
    },
    "dark_css_variables": {
        "color-brand-primary": "#56B4E9",
        "color-brand-content": "#56B4E9",
    },
}


def stand_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts a file of the repository before what the stub says."""
    if docname not in PAGES:
        return
    path = ROOT / PAGES[docname]
    app.env.note_dependency(str(path))
    text = path.read_text().replace("(notebooks/", "(")
    for page, file in PAGES.items():
        text = text.replace(f"({file})", f"({page}.md)")
    source[0] = f"{text}\n\n{source[0]}"


def own_signature(
    app: Sphinx,  # noqa: ARG001
    what: str,
    name: str,
    obj: Any,
    *rest: Any,  # noqa: ARG001
) -> tuple[str, str] | None:
    """The signature of an NNX module, which its metaclass hides."""
    if what != "class" or not name.startswith("mmpareto_jax.models."):
        return None
    if "__init__" not in vars(obj) or getattr(obj, "_is_protocol", False):
        return None
    found = signature(obj.__init__, bound_method=True)
    parameters = [
        p.replace(annotation=p.empty, default=Named(p.default))
        if isinstance(p.default, type) and p.default is not p.empty
        else p.replace(annotation=p.empty)
        for p in found.parameters.values()
    ]
    found = found.replace(parameters=parameters, return_annotation=found.empty)
    return str(found), ""


@dataclasses.dataclass
class Named:
    """A type as a default value, written by its name."""

    value: Any

    def __repr__(self) -> str:
        return self.value.__name__


def mathml(node: Any, *, as_block: bool) -> str:
    """One formula, which must be in the part of LaTeX that docutils knows."""
    # Brackets in MathML stretch by themselves: "big" has no counterpart.
    text = re.sub(r"\\[Bb]ig(?![a-zA-Z])", "", node.astext())
    text = re.sub(r"\\dots(?![a-zA-Z])", r"\\ldots", text)
    try:
        return tex2mathml(text, as_block=as_block)
    except MathError as error:
        where = f"{node.source}:{node.line}"
        raise ExtensionError(f"{where}: {node.astext()!r}: {error}") from error


def visit_math(writer: Any, node: Any) -> None:
    """A formula in a line of text."""
    writer.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_block(writer: Any, node: Any) -> None:
    """A displayed formula."""
    writer.body.append(f'<div class="math">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", stand_in)
    app.connect("autodoc-process-signature", own_signature)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_block, None))
