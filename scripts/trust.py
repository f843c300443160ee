"""What a config may execute: a check of configs from others before MONAI evaluates them.

MONAI evaluates every string that starts with ``$`` as Python and calls whatever ``_target_`` names, so a config can do
everything that its user can. The check reads the files as plain JSON and lets pass only what our own configs need.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from disinr_monai.errors import InputError

_OUR_MODULES = {"bundle": "disinr_monai.bundle", "data": "disinr_monai.data"}
_OUR_MODULES["prepare_batch"] = "disinr_monai.fitting.prepare_batch"
_IMPORTS = {f"import {path} as {name}" for name, path in _OUR_MODULES.items()}
_TARGETS = {
    "monai.data.CacheDataset",
    "monai.data.Dataset",
    "monai.engines.SupervisedEvaluator",
    "monai.engines.SupervisedTrainer",
    "monai.handlers.LrScheduleHandler",
    "monai.inferers.SimpleInferer",
    "monai.transforms.Compose",
    "torch.optim.Adam",
    "torch.optim.AdamW",
    "torch.optim.SGD",
    "torch.optim.lr_scheduler.StepLR",
    "torch.utils.data.DataLoader",
}
_FUNCTIONS = {
    "monai.utils.set_determinism",
    "torch.cuda.is_available",
    "torch.device",
    "torch.distributed.destroy_process_group",
    "torch.distributed.get_rank",
    "torch.distributed.get_world_size",
    *(target for target in _TARGETS if target.startswith("torch.optim")),
}
_BUILTINS = {"dict", "float", "int", "len", "list", "max", "min", "range", "round", "set", "str", "tuple"}
# What may be asked of an object that the config has built.
_MEMBERS = {
    "domain",
    "get",
    "initial",
    "own_batch_size",
    "parameters",
    "passes",
    "run",
    "set_amp",
    "settings",
    "shared",
    "to",
    "weight_power",
}
_SYNTAX = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Store, ast.Attribute, ast.Call, ast.keyword, ast.Subscript,
    ast.Slice, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.IfExp, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not,
    ast.USub, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Compare, ast.Eq, ast.NotEq,
    ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot, ast.ListComp, ast.SetComp, ast.DictComp,
    ast.GeneratorExp, ast.comprehension,
)  # fmt: skip
_REFERENCE = re.compile(r"@{1,2}[A-Za-z_]\w*(?:(?:#|::)\w+)*")


def check_trusted(files: Iterable[str | Path]) -> None:
    """Refuse config files that would execute anything but this package and the few functions that its configs need.

    Args:
        files: JSON configs, in any order. They are read, never evaluated.

    Raises:
        InputError: names the file, the key and the expression that was found.
    """
    for file in files:
        try:
            content = json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: expected a JSON config, found none that can be read ({error})") from None
        for key, value in _strings(content):
            reason = _refused(key, value)
            if reason:
                shown = value if len(value) <= 80 else value[:77] + "..."
                raise InputError(
                    f"{file}: {key} = {shown!r} is refused ({reason}); read the file, and if you trust its author "
                    "run it with --trusted true"
                )


def _strings(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _strings(value, f"{key}#{name}" if key else name)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _strings(value, f"{key}#{i}")
    elif isinstance(node, str):
        yield key, node


def _refused(key: str, value: str) -> str:
    """Why a string of a config may not be evaluated; empty if it may."""
    last = key.rpartition("#")[2]
    if last == "_desc_":
        return ""
    if last == "_mode_" and value not in ("callable", "default"):
        return "a mode that runs a debugger"
    if last == "_wrapper_":
        return "wrappers are not needed here"
    text = value.strip()
    if text.startswith("%"):
        return "a macro that reads another file" if re.search(r"\.(json|ya?ml)", text, re.I) else ""
    if last == "_target_" and not text.startswith(("$", "@")):
        return "" if text in _TARGETS or _is_ours(text) else "a target outside the allow-list"
    if not text.startswith("$"):
        return ""
    expression = text[1:].strip()
    if expression in _IMPORTS:
        return ""
    try:
        tree = ast.parse(_REFERENCE.sub("ref_", expression), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return "not one expression"
    return _check(tree)


def _is_ours(path: str) -> bool:
    """Whether a dotted path names a public class or function that this package itself defines."""
    module, _, name = path.rpartition(".")
    if not module.startswith("disinr_monai.") or name.startswith("_"):
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return callable(found) and str(getattr(found, "__module__", "")).startswith("disinr_monai.")


def _check(tree: ast.Expression) -> str:
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    paths = {}  # the outermost attribute of a dotted name stands for the whole
    for node in ast.walk(tree):
        if not isinstance(node, _SYNTAX):
            return f"{type(node).__name__} is not allowed"
        dotted = _dotted(node)
        if dotted:
            paths[dotted] = node
    inner = {part for path in paths for part in _prefixes(path)}
    for path in sorted(paths.keys() - inner):
        reason = _path_refused(path, bound)
        if reason:
            return reason
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not _dotted(node) and node.attr not in _MEMBERS:
            return f"member {node.attr} is not in the allow-list"
    return ""


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = _dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _path_refused(path: str, bound: set[str]) -> str:
    head, *members = path.split(".")
    if path in _FUNCTIONS or (path in _BUILTINS and path not in bound):
        return ""
    if head == "ref_" or head in bound:
        wrong = [member for member in members if member not in _MEMBERS]
        return f"member {wrong[0]} is not in the allow-list" if wrong else ""
    if head in _OUR_MODULES and len(members) == 1 and _is_ours(f"{_OUR_MODULES[head]}.{members[0]}"):
        return ""
    return f"{path} is not in the allow-list"
