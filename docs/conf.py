"""Sphinx's configuration. The source folder is the repository's root, so that pages link as they do on its own pages.

``sphinx-build -W -n -c docs . build/site`` makes the site.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

sys.path.insert(0, str(Path(__file__).parent / "site"))

import refnet

project = "refnet"
author = "The refnet maintainers"
release = version = refnet.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx_copybutton", "mistakes", "source_of"]
root_doc = "docs/index"
include_patterns = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/**.md", "kernels/README.md",
    "examples/README.md", "tests/ptxcheck/README.md", "refnet/data/digits/README.md",
]  # fmt: skip
nitpicky = True
# TensorFlow's function.
nitpick_ignore = [("py:obj", "resize_bilinear")]

myst_enable_extensions = ["attrs_block", "colon_fence", "fieldlist"]
myst_heading_anchors = 3
# Blocks without a language are what a terminal shows.
myst_highlight_code_blocks = False
suppress_warnings = ["myst.strikethrough"]
highlight_language = "none"

default_role = "py:obj"
autodoc_typehints = "none"  # the docstrings say the types, with shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "furo"
html_title = "refnet"
html_static_path = ["site/static"]
html_css_files = ["refnet.css"]
html_additional_pages = {"index": "to_docs.html"}
templates_path = ["site/templates"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contents: nodes.Element) -> Any:
    """A name in a docstring that is not the full one: a link if the site has it; of refnet's inside, code."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    target = node["reftarget"]
    domain = env.domains.python_domain
    found = domain.find_obj(env, node.get("py:module"), node.get("py:class"), target, "obj", searchmode=1)
    if found:
        name, entry = min(found)
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contents, name)
    return contents if target.startswith(("refnet.", "refnet_kernels.")) else None


def _link(app: Sphinx, what: str, name: str, object_: Any, options: Any, lines: list[str]) -> None:
    """A page that a docstring names as a terminal shows it, docs/homes.md, is a link."""
    lines[:] = [re.sub(r"\b((?:docs/[\w/-]+|SECURITY)\b)\.md\b", r":doc:`\g<0> </\1>`", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Register the handlers of names and of pages."""
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-process-docstring", _link)
