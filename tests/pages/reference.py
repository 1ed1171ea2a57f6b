"""The page docs/suites.md: every key of a suite, from the dataclasses that suites are read into.

`PYTHONPATH=tests python -m pages.reference` writes it; a test holds it up to date.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import patchers
from bench.data.config import DataConfig
from bench.data.sources import DatasetConfig
from bench.evaluation import tasks
from bench.evaluation.pretrained.config import PretrainedConfig
from bench.suites.config import MODELS, SECTIONS, RowConfig, SuiteConfig, TrainConfig
from bench.suites.launch_config import LaunchConfig, SlurmConfig
from bench.suites.schema import BASE, default_of, notes_of
from bench.system.yaml import keys_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "suites.md"

HEAD = """# What a suite may hold

Made by `PYTHONPATH=tests python -m pages.reference` from the dataclasses that suites are read into. A key that is not
here is an error, which names the nearest one. Any value can be changed on the command line, as in `train.lr=1e-3`.

`patchbench schema > suite.schema.json` writes the same for editors. With the YAML extension of VS Code, put
`# yaml-language-server: $schema=suite.schema.json` at the top of a suite, and set `yaml.yamlVersion` to `1.1`, which
reads `1_000_000` as a number.
"""

SECTIONS_OF: tuple[tuple[str, str, type[Any]], ...] = (
    ("The suite", f"`base` (text): {BASE}.", SuiteConfig),
    ("data", "Exactly one of `corpus`, `files` and `dataset`. Each text of `eval` has the same keys.", DataConfig),
    ("data.dataset", "", DatasetConfig),
    ("rows.LABEL", "`patcher: NAME` is short for `patcher: {name: NAME}`.", RowConfig),
    ("rows.LABEL.model", "Of a row of a pretrained model, which has no other key.", PretrainedConfig),
    ("train", "", TrainConfig),
    *((SECTIONS[kind], (cls.__doc__ or "").strip(), cls) for kind, cls in MODELS.items()),
    ("launch", "", LaunchConfig),
    ("launch.slurm", "", SlurmConfig),
)


def page() -> str:
    """The page in Markdown."""
    lines = [HEAD]
    for title, about, cls in SECTIONS_OF:
        lines += [f"## {title}\n", *([f"{about}\n"] if about else []), *_table(cls), ""]
    lines.append("## Options of patchers\n\n| patcher | options | what it is |\n|---|---|---|")
    for name in patchers.names():
        found = patchers.get(name)
        if not found.__module__.startswith("patchers."):
            continue  # a plug-in's
        lines.append(f"| `{name}` | {_options(found)} | {_cell(_summary(found))} |")
    lines.append("\n## Options of tasks\n\n| task | options | what it is |\n|---|---|---|")
    for name in tasks.names():
        if not tasks.get(name).__module__.startswith("bench."):
            continue
        lines.append(f"| `{name}` | {_options(tasks.get(name))} | {_cell(_summary(tasks.get(name)))} |")
    return "\n".join(lines) + "\n"


def _table(cls: type[Any]) -> Iterator[str]:
    hints, notes = typing.get_type_hints(cls, include_extras=True), notes_of(cls)
    yield "| key | value | default | what it is |\n|---|---|---|---|"
    for field in keys_of(cls):
        kind = _cell(words(hints[field.name]))
        yield f"| `{field.name}` | {kind} | {_default(field)} | {_cell(notes.get(field.name, ''))} |"


def _options(cls: type[Any]) -> str:
    fields = [field for field in keys_of(cls) if not field.name.startswith("_")]
    return _cell(", ".join(f"`{field.name}` ({_default(field)})" for field in fields))


def _default(field: dataclasses.Field[Any]) -> str:
    value = default_of(field)
    if value is dataclasses.MISSING:
        return "required"
    if value is None or value in ("", (), {}):
        return "none"
    if dataclasses.is_dataclass(value):
        return "its defaults"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _summary(cls: type[Any]) -> str:
    """The first sentence of a docstring."""
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def words(hint: Any) -> str:
    """A type, as somebody who writes YAML would call it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        limits = [limit for part in hint.__metadata__ for limit in _limits(part)]
        return " ".join([words(arguments[0]), *limits])
    if origin is Literal:
        return " | ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(part) for part in arguments if part is not type(None)))
    if origin is tuple:
        return f"a list of {words(arguments[0])}"
    if origin is dict:
        return "keys and values"
    if dataclasses.is_dataclass(hint):
        return "a section"
    plain = {int: "whole number", float: "number", str: "text", bool: "`true` | `false`"}
    return plain.get(hint, str(hint))


def _limits(part: Any) -> Iterator[str]:
    """What pydantic holds a number to."""
    for one in getattr(part, "metadata", ()):
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if hasattr(one, name):
                yield f"{sign} {getattr(one, name):g}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
