"""Config of a run as its user gave it: what the command line and MONAI make of a text is taken back.

The command line (Fire) reads ``data#2`` as Python, ``data`` with a comment; MONAI writes ``::`` for every ``#`` and
reads ``$``, ``@`` and ``%`` at the start of a text. Paths and names are no Python and no config language.
"""

from __future__ import annotations

import ast
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from disinr_monai.errors import InputError
from disinr_monai.runtime.config_files import Files, check_order, nodes, place, read_files, top_level

logger = logging.getLogger(__name__)

PATHS = frozenset({"bundle_root", "cache_dir", "checkpoint", "dataset_dir", "output_dir", "prior_checkpoint"})
NAMES = frozenset({"experiment_name", "run_name", "tracking_uri"})
_LANGUAGE = ("$", "@", "%")
# Arguments of MONAI's commands beside the overrides.
_OF_MONAI = {"init_id", "run_id", "final_id", "meta_file", "logging_file", "tracking", "workflow_type"}
_FLAG = re.compile(r"--|-[A-Za-z]")


def literal(text: str) -> str:
    """``text`` so that MONAI's config language gives it back letter by letter: itself, or an expression of it."""
    if "#" not in text and not text.startswith(_LANGUAGE) and not re.search("[@%]::", text):
        return text
    return "$" + re.sub("[#@%:]", lambda found: f"\\x{ord(found[0]):02x}", ascii(text))


def _plain(value: Any) -> Any:
    """A config with its literal texts (:func:`literal`) written out."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str) and value.startswith(("$'", '$"')):
        try:
            return str(ast.literal_eval(value[1:]))
        except (SyntaxError, ValueError):
            return value
    return value


def find_config() -> tuple[Mapping[str, Any], Files]:
    """Config of the workflow that is being initialised, and its files as they are, in their order.

    MONAI evaluates config expressions without telling them which config they belong to, and merges files and command
    line before anything of ours runs; the calling frames are the only place where both are still known. A text that
    MONAI or its command line changed on the way is put back. A workflow that was not made by ``monai.bundle.run`` or
    ``create_workflow`` has forgotten its files and what was typed: the files are then those of its folder that are
    whole in the config.

    Raises:
        InputError: files of which one undoes another; a path or name with ``#`` or ``::``, which cannot be told apart
            any more in a workflow of the second kind.
    """
    from monai.bundle import ConfigWorkflow

    parser, folder, files, given, words = None, None, None, {}, []
    frame = sys._getframe(1)
    while frame is not None:
        scope, name = frame.f_locals, frame.f_code.co_name
        owner = scope.get("self")
        if parser is None and isinstance(owner, ConfigWorkflow):
            parser, folder = owner.parser, Path(owner.config_root_path)
        elif files is None and name == "create_workflow" and scope.get("config_file"):
            files, given = scope["config_file"], scope.get("_args", {})
        elif files is not None and name == "Fire":
            words = scope.get("args") or []
        frame = frame.f_back
    if parser is None:
        return {}, {}
    if files is not None:
        _restore(parser, given, typed_words(words))
        content = read_files([files] if isinstance(files, str) else files)
        check_order(content)
        return _plain(parser.config), content
    for key in sorted(PATHS | NAMES):
        text = parser.config.get(key)
        if isinstance(text, str) and "::" in text and not text.startswith(_LANGUAGE):
            raise InputError(
                f"{key}: expected a text without # and ::, which this workflow cannot tell apart, found {text!r}; use "
                "monai.bundle.create_workflow, or give disinr_monai.bundle.literal(TEXT)"
            )
    beside = read_files(folder.glob("*.json"))
    whole = {file: content for file, content in beside.items() if set(map(top_level, content)) <= parser.config.keys()}
    return _plain(parser.config), dict(sorted(whole.items(), key=lambda item: place(item[1])))


def _restore(parser: Any, given: Mapping[str, Any], typed: Mapping[str, str]) -> None:
    """Put the texts of the overrides back into a parser, as they were typed.

    Args:
        parser: of MONAI.
        given: overrides as MONAI's command got them.
        typed: words of the command line by key; empty for a call from Python, where ``$``, ``@`` and ``%`` at the
            start of a text are config language.
    """
    changed = {}
    for key, value in given.items():
        word = typed.get(key, "")
        if key in _OF_MONAI:
            continue
        if key in PATHS | NAMES and word and value is not None and word != "$None":
            changed[key] = literal(word)
            continue
        if "#" in word and not word.startswith((*_LANGUAGE, "'", '"')):
            value = _without_comments(word, value)
        for name, text in nodes(key, value):
            if isinstance(text, str) and "#" in text and not text.startswith(_LANGUAGE):
                changed[name] = literal(text)
    changed = {name: text for name, text in changed.items() if parser[name] != text}
    for name, text in changed.items():
        parser[name] = text
    if changed:
        parser.parse()
        logger.info("taken as typed, whatever MONAI's input summary shows: %s", ", ".join(changed))


def _without_comments(word: str, value: Any) -> Any:
    """A word with ``#`` as it was typed: Python takes the rest for a comment, also where there are no brackets."""
    if isinstance(value, (Mapping, list)):
        from fire.parser import DefaultParseValue

        return DefaultParseValue(word)  # anew: MONAI has changed the texts in it
    return word


def typed_words(words: Sequence[str]) -> dict[str, str]:
    """The words of a command line by key, as they were typed; the last where a key comes twice."""
    typed = {}
    for word, after in zip(words, [*words[1:], "--"], strict=False):
        if _FLAG.match(word):
            key, equals, value = word.lstrip("-").partition("=")
            if equals or not _FLAG.match(after):
                typed[key.replace("-", "_")] = value if equals else after
    return typed


def config_files(words: Sequence[str]) -> list[str]:
    """The files named by ``--config_file``.

    Raises:
        InputError: none named, or no such file.
    """
    text = typed_words(words).get("config_file", "")
    try:
        found = ast.literal_eval(text) if text.startswith(("[", "(", "'", '"')) else text
    except (SyntaxError, ValueError):
        found = ""
    if not found:
        raise InputError("config_file: expected --config_file FILE or \"['FILE','FILE']\", found none")
    files = [found] if isinstance(found, str) else [str(file) for file in found]
    for file in files:
        if not Path(file).is_file():
            beside = sorted(path.name for path in Path(file).parent.glob("*.json"))
            raise InputError(
                f"config_file: {file}: expected a config file, found no such file; "
                + (f"beside it lie {', '.join(beside)}" if beside else "start in the folder that holds configs/")
            )
    return files
