"""Strict YAML: values know their lines, duplicate keys are errors, types are kept.

Plain scalars follow YAML 1.2: `3e-4` and `1_000` are numbers, and `no`, `on` and `12:30` are text (PyYAML's
rules, those of YAML 1.1, make them text, false, true and 750).
"""

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeVar, Union

import yaml
from pydantic import TypeAdapter, ValidationError

from patchers.errors import BenchError
from patchers.named import nearest

T = TypeVar("T")
Path = tuple[str | int, ...]


@dataclass
class Tree:
    """A YAML document: its value, and for each path in it the line or the override that put it there."""

    name: str  # how messages call the file
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)
    overrides: dict[Path, str] = field(default_factory=dict)
    folder: str | None = None  # where the file lies; None where relative paths in it begin in the working directory
    folders: dict[Path, str | None] = field(default_factory=dict)  # the same of what is from another file

    def override(self, text: str) -> None:
        """Apply one `dotted.key=value`, the value read as YAML. Raises BenchError, naming the override."""
        dotted, equals, raw = text.partition("=")
        if not equals or not dotted:
            raise BenchError(f"override {text!r} is not key=value; write it like train.lr=1e-3")
        value = parse(raw, f"override {text!r}").value
        holder, parts = self.value, dotted.split(".")
        path: Path = ()
        while True:
            if not isinstance(holder, dict):
                raise BenchError(f"override {text!r}: {_dotted(path)} is {holder!r}, with no keys below it")
            # A key may hold dots itself (a row named `stride-4.5`): the longest that is there is meant.
            lengths = range(len(parts), 0, -1)
            length = next((n for n in lengths if ".".join(parts[:n]) in holder), 1)
            key = ".".join(parts[:length])
            path, parts = (*path, key), parts[length:]
            if not parts:
                break
            if holder.get(key) is None:
                holder[key] = {}
            holder = holder[key]
        holder[key] = value
        for known in (self.lines, self.overrides):
            for old in [p for p in known if p[: len(path)] == path]:
                del known[old]
        self.overrides[path] = text

    def at(self, *path: str | int) -> "Place":
        return Place(self, path)


@dataclass(frozen=True)
class Place:
    """A path in a tree, to read from and to complain about."""

    tree: Tree
    path: Path

    def __truediv__(self, key: str | int) -> "Place":
        return Place(self.tree, (*self.path, key))

    @property
    def folder(self) -> str | None:
        """Where a relative path that stands here begins (`bench.system.files.located`): in the folder of the file, or
        in the working directory if an override put it here, which was typed there."""
        typed = any(p[: len(self.path)] == self.path[: len(p)] for p in self.tree.overrides)
        elsewhere = [folder for path, folder in self.tree.folders.items() if self.path[: len(path)] == path]
        return None if typed else next(iter(elsewhere), self.tree.folder)

    def error(self, message: str) -> BenchError:
        """`quick.yaml, line 12: train.lr: MESSAGE`; an override is named instead of a line."""
        return BenchError(": ".join(part for part in (self.origin(), _dotted(self.path), message) if part))

    def origin(self) -> str:
        for length in range(len(self.path), -1, -1):
            path = self.path[:length]
            made_for = [p for p in self.tree.overrides if p[:length] == path]
            if made_for and path not in self.tree.lines:  # not in the file: an override made it
                return f"override {self.tree.overrides[made_for[-1]]!r}"
            if path in self.tree.lines:
                return f"{self.tree.name}, line {self.tree.lines[path]}"
        return self.tree.name


def parse(text: str, name: str) -> Tree:
    """Raises BenchError with the line for what is not YAML, a key that stands twice, or a tag."""
    try:
        return _parse(text, name)
    except RecursionError as error:
        raise BenchError(f"{name}: its values are nested too deeply to be read; use fewer levels") from error


def parse_file(path: FilePath, called: str) -> Tree:
    """As `parse`. Raises BenchError as well for a file that cannot be read, with what it is `called`."""
    try:
        return parse(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"cannot read {called}: {error}") from error


def _parse(text: str, name: str) -> Tree:
    tree = Tree(name, None)
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BenchError(f"{name}{line}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:  # PyYAML leaves it to `chr` to find that "\\U00110000" is none
        raise BenchError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    if node is not None:
        tree.lines[()] = node.start_mark.line + 1
        tree.value = _value(node, (), tree, ())
    return tree


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


MOST_VALUES = 100_000
"""That a document may hold, what aliases repeat counted: a few lines of aliases of aliases would fill any memory."""
DEEPEST = 100
"""Brackets inside one another; for each, PyYAML looks at all that are open, and takes minutes over a file of them."""


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser with the plain scalars of YAML 1.2's core schema."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= DEEPEST:
            problem = f"more than {DEEPEST} brackets inside one another"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
        super().fetch_flow_collection_start(token)

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's name and type)


_DIGITS = "0123456789"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+" + _DIGITS)),
    ("float", r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?", list("-+." + _DIGITS)),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)

_SCALARS: dict[str, Any] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": lambda text: int(text.replace("_", "")),
    "tag:yaml.org,2002:float": lambda text: float(text.replace("_", "")),
    "tag:yaml.org,2002:str": str,
}


def _value(node: yaml.Node, path: Path, tree: Tree, above: tuple[yaml.Node, ...]) -> Any:
    if node in above:
        raise tree.at(*path).error("an alias stands inside of what it repeats")
    if len(tree.lines) > MOST_VALUES:
        raise BenchError(f"{tree.name}: more than {MOST_VALUES:,} values, aliases counted; leave some out")
    above = (*above, node)
    if isinstance(node, yaml.ScalarNode):
        read = _SCALARS.get(node.tag)
        try:
            if read is not None:
                return read(node.value)
        except ValueError as error:
            raise tree.at(*path).error(f"{node.value!r} is not a {node.tag.rpartition(':')[2]}") from error
    elif isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        for index, item in enumerate(node.value):
            tree.lines[(*path, index)] = item.start_mark.line + 1
        return [_value(item, (*path, index), tree, above) for index, item in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        return dict(_items(node, path, tree, above))
    raise tree.at(*path).error(f"the tag {node.tag} means nothing here; write the plain value")


def _items(node: yaml.MappingNode, path: Path, tree: Tree, above: tuple[yaml.Node, ...]) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise BenchError(f"{tree.name}, line {line}: a key must be plain text")
        key = key_node.value
        here = (*path, key)
        if key in seen:
            other = f"stands here and in line {seen[key]}; keep one of them"
            raise BenchError(f"{tree.name}, line {line}: {_dotted(here)} {other}")
        seen[key] = tree.lines[here] = line
        yield key, _value(value_node, here, tree, above)


# --- into dataclasses


def keys_of(cls: type[Any]) -> list[dataclasses.Field[Any]]:
    """The fields of a config dataclass that are keys of the YAML: all but those that our own code sets."""
    return [f for f in dataclasses.fields(cls) if f.init and f.metadata.get("key", True)]


def dataclass_from_mapping(cls: type[T], mapping: Any, place: Place, base: T | None = None) -> T:
    """A config dataclass from a YAML mapping; what is absent comes from `base`, or is the default.

    Raises BenchError at the place of an unknown key, a missing key, or a value of the wrong type or range.
    """
    if not isinstance(mapping, Mapping):
        raise place.error(f"wanted keys and values, got {mapping!r}")
    fields = {f.name: f for f in keys_of(cls)}
    hints = typing.get_type_hints(cls, include_extras=True)
    for key in mapping:
        if key not in fields:
            near = nearest(key, list(fields))
            raise (place / key).error(f"unknown key{near}; there are: {', '.join(fields)}")
    values = {} if base is None else {name: getattr(base, name) for name in fields}
    for name, f in fields.items():
        if name in mapping:
            values[name] = _checked(hints[name], mapping[name], place / name)
        elif base is None and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise place.error(f"missing key {name!r}")
    try:
        return cls(**values)
    except ValueError as error:  # from __post_init__: about several fields, of which one is pointed at
        named = [key for key in mapping if re.search(rf"\b{key}\b", str(error))]
        named.sort(key=lambda key: (place / key).path not in place.tree.overrides)
        raise (place / named[0] if named else place).error(str(error)) from error


def _checked(hint: Any, value: Any, place: Place) -> Any:
    """The value as the type says, or a BenchError. Strict: "3" is no number, 1 is not true."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    section = next((part for part in parts if dataclasses.is_dataclass(part)), None)
    if section is not None:
        if value is None and type(None) in parts:
            return None
        return dataclass_from_mapping(section, value, place)  # type: ignore[arg-type]
    try:
        # From JSON, because there a list may become a tuple although the check is strict.
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # one of our own sentences
            raise _inside(place, first["loc"], value).error(str(first["ctx"]["error"])) from error
        wanted = [_wanted(e["msg"]) for e in error.errors() if e["input"] == first["input"]]
        message = f"wanted {' or '.join(dict.fromkeys(wanted))}, got {json.dumps(first['input'], ensure_ascii=False)}"
        raise _inside(place, first["loc"], value).error(message) from error


def _wanted(message: str) -> str:
    plain = {
        "a valid integer": "a whole number",
        "a valid number": "a number",
        "a valid string": "text",
        "a valid boolean": "true or false",
        "a valid array": "a list",
        "an object": "keys and values",
    }
    wanted = message.removeprefix("Input should be ")
    return plain.get(wanted, wanted)


def _inside(place: Place, loc: tuple[Any, ...], value: Any) -> Place:
    """Follow pydantic's location as far as it goes into the value; beyond are names of types, not of keys."""
    for step in loc:
        is_item = isinstance(value, list) and isinstance(step, int)
        if not is_item and not (isinstance(value, dict) and step in value):
            break
        value, place = value[step], place / step
    return place
