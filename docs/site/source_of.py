"""The directive ``source-of``: a function of refnet as it stands in its file, without its docstring.

.. code-block:: markdown

    ```{source-of} refnet.network.resnet_v2.bottleneck
    ```

It includes the file's own lines, as ``literalinclude`` does, with their numbers; the text beside it takes the place of
the docstring.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]


def source_of(name: str) -> tuple[str, int, str]:
    """The lines of a function, a class or a variable.

    Parameters
    ----------
    name : str
        "refnet.network.resnet_v2.bottleneck".

    Returns
    -------
    path : str
        From the root of the repository.
    first : int
        The number of the first line.
    text : str

    Raises
    ------
    LookupError
        There is no such file, or no such name in it.
    """
    module, _, wanted = name.rpartition(".")
    path = Path(*module.split(".")).with_suffix(".py")
    for folder in (ROOT, ROOT / "kernels"):
        if (folder / path).is_file():
            break
    else:
        raise LookupError(f"there is no file {path}")
    text = (folder / path).read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if wanted in _names(node):
            decorators = getattr(node, "decorator_list", [])
            first = min(each.lineno for each in (node, *decorators)) - 1
            left_out: range = range(0)
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
                left_out = range(node.body[0].lineno - 1, node.body[0].end_lineno or 0)
            shown = [line for i, line in enumerate(lines[: node.end_lineno]) if i >= first and i not in left_out]
            return str((folder / path).relative_to(ROOT)), first + 1, "\n".join(shown)
    raise LookupError(f"there is no {wanted} in {path}")


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


class SourceOf(SphinxDirective):
    """A function's own lines."""

    required_arguments = 1
    option_spec = {"class": directives.class_option}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """The code, under its file and its first line."""
        try:
            path, first, text = source_of(self.arguments[0])
        except LookupError as error:
            raise self.error(str(error)) from error
        self.env.note_dependency(str(ROOT / path))
        code = nodes.literal_block(text, text, language="python")
        caption = nodes.caption("", "", nodes.literal("", f"{path}:{first}"))
        return [nodes.container("", caption, code, classes=["source-of"], literal_block=True)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("source-of", SourceOf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
