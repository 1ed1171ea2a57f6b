"""The JSON Schema of suites, for editors, made from the dataclasses that suites are read into."""

from __future__ import annotations

import dataclasses
import inspect
import io
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator
from typing import Any, Union

from pydantic import TypeAdapter

import patchers
from bench.data.config import DataConfig
from bench.evaluation import tasks
from bench.evaluation.pretrained.config import PretrainedConfig
from bench.suites.config import MODELS, RowConfig, SuiteConfig, TrainConfig, plain, sweep_keys
from bench.system.yaml import keys_of

BASE = "the suite whose data, sizes, training and matching this one has, but for what it says itself: a path or a name"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def schema() -> Any:
    """What a suite's YAML may hold. Plug-ins may have any name; options of our own patchers and tasks are checked."""
    found = _Definitions()
    suite = found.of(SuiteConfig)
    pretrained = {"type": "object", "properties": {"model": found.section(PretrainedConfig)}, "required": ["model"]}
    row = {
        "if": {"properties": {"model": {"type": "object"}}, "required": ["model"]},
        "then": found.reference("pretrained", {**pretrained, "additionalProperties": False}),
        "else": found.reference("row", _row(found)),
    }
    suite["properties"] |= {
        "base": {"type": "string", "description": BASE},
        "rows": {"type": "object", "minProperties": 1, "additionalProperties": row},
        "eval": {"type": "object", "additionalProperties": {"anyOf": [_corpus(), found.section(DataConfig)]}},
        "tasks": {"type": "array", "minItems": 1, "items": found.reference("task", _named(tasks))},
        "sweep": {
            "type": "object",
            "properties": {key: {"type": "array", "items": {"type": "number"}} for key in sweep_keys()},
            "additionalProperties": False,
        },
    }
    suite["required"].remove("data")
    suite["anyOf"] = [{"required": ["data"]}, {"required": ["base"]}]
    for name, text in notes_of(SuiteConfig).items():
        suite["properties"][name].setdefault("description", text)
    return plain({"$schema": DIALECT, "title": "A suite of patchbench", **suite, "$defs": found.made})


class _Definitions:
    """Sections by name, each made once."""

    def __init__(self) -> None:
        self.made: dict[str, Schema] = {}

    def reference(self, name: str, made: Schema) -> Schema:
        self.made[name] = made
        return {"$ref": f"#/$defs/{name}"}

    def section(self, cls: type[Any]) -> Schema:
        if cls.__name__ not in self.made:
            self.made[cls.__name__] = {}  # it may be asked for again meanwhile
            self.made[cls.__name__] = self.of(cls)
        return {"$ref": f"#/$defs/{cls.__name__}"}

    def of(self, cls: type[Any]) -> Schema:
        """An object with the keys of a config dataclass and no others."""
        hints, notes = typing.get_type_hints(cls, include_extras=True), notes_of(cls)
        properties, required = {}, []
        for field in keys_of(cls):
            made = self.value(hints[field.name])
            if field.name in notes:
                made = {"description": notes[field.name], **made}
            default = default_of(field)
            if default is dataclasses.MISSING:
                required.append(field.name)
            elif default is not None and not dataclasses.is_dataclass(default):
                made = {**made, "default": list(default) if isinstance(default, tuple) else default}
            properties[field.name] = made
        out: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            out["required"] = required
        if cls is DataConfig:
            properties["files"] = {"anyOf": [{"type": "string"}, properties["files"]]}
            properties["corpus"] = {**_corpus(), "description": properties["corpus"].get("description", "")}
            out["oneOf"] = [{"required": [source]} for source in ("corpus", "files", "dataset")]
        return out

    def value(self, hint: Any) -> Schema:
        parts = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
        sections = [part for part in parts if dataclasses.is_dataclass(part)]
        if not sections:
            return TypeAdapter(hint).json_schema()
        made = [self.section(typing.cast("type[Any]", part)) for part in sections]
        made += [{"type": "null"}] if type(None) in parts else []
        return made[0] if len(made) == 1 else {"anyOf": made}


def default_of(field: dataclasses.Field[Any]) -> Any:
    """MISSING where a key has to be given."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _corpus() -> Schema:
    from bench.data.sources import CORPORA

    return {"enum": sorted(CORPORA)}


def _row(found: _Definitions) -> Schema:
    row = found.of(RowConfig)
    row["properties"] |= {"patcher": found.reference("patcher", _named(patchers)), "train": found.section(TrainConfig)}
    # Which options there are depends on the model; `harness` where none is named.
    by_model = [(kind, found.section(cls)) for kind, cls in MODELS.items()]
    row["allOf"] = [
        {
            "if": {"properties": {"model": {"const": kind}}, **({} if kind == "harness" else {"required": ["model"]})},
            "then": {"properties": {"options": sizes}},
        }
        for kind, sizes in by_model
    ]
    return row


def _named(registry: types.ModuleType) -> Schema:
    """A name, or a name with options; the options of the registered classes are checked."""
    cases = []
    for name in registry.names():
        cls = registry.get(name)
        hints = typing.get_type_hints(cls, include_extras=True)
        fields = [field for field in keys_of(cls) if not field.name.startswith("_")]
        options = {field.name: _option(hints[field.name], default_of(field)) for field in fields}
        then = {"properties": {"name": True, **options}, "additionalProperties": False}
        cases.append({"if": {"properties": {"name": {"const": name}}}, "then": then})
    names = {"anyOf": [{"enum": registry.names()}, {"type": "string", "description": "a plug-in's"}]}
    chosen = {"type": "object", "required": ["name"], "properties": {"name": names}, "allOf": cases}
    return {"anyOf": [*names["anyOf"], chosen]}


def _option(hint: Any, default: Any) -> Schema:
    made = _Definitions().value(hint)
    if "$ref" in made or "anyOf" in made:  # a section in a task's options
        return {} if "$ref" in str(made) else made
    return made if default in (None, dataclasses.MISSING) else {**made, "default": default}


# --- what the source says about fields


def notes_of(cls: type[Any]) -> dict[str, str]:
    """What stands beside each field of a config dataclass: a comment in its line, comments above, or a text below."""
    source = textwrap.dedent(inspect.getsource(cls))
    fields = {field.name for field in dataclasses.fields(cls)}
    found: dict[str, str] = {}
    above: list[str] = []
    name = ""
    for line in _body(source):
        code, comment = line
        key = code.partition(":")[0].strip()
        if key in fields:
            name = key
            text = comment or " ".join(above)
            if text:
                found[name] = text
            above = []
        elif not code and comment:
            above.append(comment)
        elif code.startswith('"""') and name and name not in found:
            found[name] = " ".join(code.strip('"').split())
        else:
            above, name = [], name if not code else ""
    return found


def _body(source: str) -> Iterator[tuple[str, str]]:
    """(code, comment) of each statement or lone comment in the body of a class, one level deep."""
    depth, code, comment = 0, "", ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif token.type == tokenize.COMMENT:
            comment = token.string.lstrip("# ")
            if not code and depth <= 1:
                yield "", comment
                comment = ""
        elif token.type == tokenize.NEWLINE:
            if depth == 1:
                yield code.strip(), comment
            code = comment = ""
        elif token.type != tokenize.NL and depth == 1:
            code += token.string if token.type == tokenize.STRING else f"{token.string} "
