"""Documentation build only: docstring markup as Markdown, and equations as MathML, so that pages load no script for it.

``.. math::`` blocks become display equations, ``:math:`` inline ones, and references such as ``:class:`~a.b.C``` code.
An argument line for several names (``height, width: in mm``) becomes one line for each name.
"""

from __future__ import annotations

import html
import logging
import re
import textwrap

import griffe
from latex2mathml.converter import convert

_BLOCK = re.compile(r"^( *)\.\. math::(?: *(\S.*))?\n((?:(?:\1 +\S.*)?\n)*)", re.MULTILINE)
_INLINE_MATH = re.compile(r":math:`([^`]+)`")
_REFERENCE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)([^`]+)`")
_SEVERAL_ARGUMENTS = re.compile(r"^( {4,})(\w+(?:, \w+)+)(: .*\n(?:\1 +\S.*\n)*)", re.MULTILINE)
_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_UNKNOWN_TO_CONVERTER = {r"\arg": r"\operatorname{arg}"}
_log = logging.getLogger("mkdocs.plugins.equations")


def to_markdown(text: str) -> str:
    """Rewrite the reStructuredText markup of a docstring as Markdown."""

    def block(match: re.Match[str]) -> str:
        indent, first, rest = match.group(1), match.group(2) or "", textwrap.dedent(match.group(3)).strip("\n")
        lines = " ".join(line for line in (first, *rest.splitlines()) if line.strip())
        return f"\n{indent}\\[ {lines} \\]\n\n"

    def one_each(match: re.Match[str]) -> str:
        return "".join(f"{match.group(1)}{name}{match.group(3)}" for name in match.group(2).split(", "))

    text = _SEVERAL_ARGUMENTS.sub(one_each, _BLOCK.sub(block, text + "\n")).rstrip("\n")
    text = _INLINE_MATH.sub(r"\\(\1\\)", text)
    return _REFERENCE.sub(lambda m: f"`{m.group(2).rsplit('.', 1)[-1] if m.group(1) else m.group(2)}`", text)


class DocstringMarkup(griffe.Extension):
    """Griffe extension: rewrite every docstring before it is parsed, and document names where they are defined only."""

    def on_module(self, *, mod: griffe.Module, **_: object) -> None:
        """Drop the names that the ``__init__.py`` of a room re-exports."""
        for name in [name for name, member in mod.members.items() if mod.is_init_module and member.is_alias]:
            mod.del_member(name)

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_mathml(tex: str, display: str) -> str:
    """Convert one equation; ``ValueError`` names a command that the converter does not know."""
    for command, replacement in _UNKNOWN_TO_CONVERTER.items():
        tex = re.sub(re.escape(command) + r"(?![a-zA-Z])", lambda _, new=replacement: new, tex)
    mathml = re.sub(r"(<mi>[a-z]{2,}</mi>)(?=<mi)", r'\1<mspace width="0.167em" />', convert(tex, display=display))
    if unknown := re.search(r"\\[a-zA-Z]*|[\x00-\x08]", mathml):
        raise ValueError(f"cannot set {unknown.group()!r} in the equation {tex.strip()}")
    return mathml


def on_page_content(content: str, page, **_: object) -> str:
    """MkDocs hook: convert every equation of a page; one that fails is a warning, hence an error in a strict build."""

    def convert_match(match: re.Match[str]) -> str:
        try:
            return to_mathml(html.unescape(match.group(3)), "inline" if match.group(2) == "(" else "block")
        except Exception as error:
            _log.warning("%s: %s: %s", page.file.src_uri, type(error).__name__, error)
            return match.group()

    return _EQUATION.sub(convert_match, content)
