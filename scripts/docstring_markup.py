"""Documentation build only: the reStructuredText marks used in docstrings, as the Markdown that mkdocstrings renders.

``.. math::`` blocks become display equations, ``:math:`` inline ones, and references such as ``:class:`~a.b.C``` code.
"""

from __future__ import annotations

import re
import textwrap

import griffe

_BLOCK = re.compile(r"^( *)\.\. math::(?: *(\S.*))?\n((?:(?:\1 +\S.*)?\n)*)", re.MULTILINE)
_INLINE_MATH = re.compile(r":math:`([^`]+)`")
_REFERENCE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)([^`]+)`")


def to_markdown(text: str) -> str:
    """Docstring text with Markdown in place of the marks."""

    def block(match: re.Match[str]) -> str:
        indent, first, rest = match.group(1), match.group(2) or "", textwrap.dedent(match.group(3)).strip("\n")
        lines = " ".join(line for line in (first, *rest.splitlines()) if line.strip())
        return f"\n{indent}\\[ {lines} \\]\n\n"

    text = _BLOCK.sub(block, text + "\n").rstrip("\n")
    text = _INLINE_MATH.sub(r"\\(\1\\)", text)
    return _REFERENCE.sub(lambda m: f"`{m.group(2).rsplit('.', 1)[-1] if m.group(1) else m.group(2)}`", text)


class DocstringMarkup(griffe.Extension):
    """Griffe extension that rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
