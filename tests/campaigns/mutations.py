"""Suite files and command lines that are nearly right, and others that are not at all: for `campaigns.fuzz`.

Everything is drawn from the generator that is given, so that a case comes out again from its seed. No value is both
valid and long to work on (no text of gigabytes, no folder to search through), for then its time says nothing.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import yaml

import patchers
from bench.claims import predicates
from bench.claims.config import ClaimConfig, ClaimsConfig, Origin
from bench.data.config import DataConfig
from bench.data.sources import DatasetConfig
from bench.evaluation import tasks
from bench.suites.config import MODELS, RowConfig, SuiteConfig, TrainConfig
from bench.suites.launch_config import LaunchConfig

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 1.5, 0.0, -0.0, 1e-320, 1e18, -1e18, 1e308, 2**31, 2**63, 2**64, 10**30, 10**400),
    *(float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *("", " ", "\t", "0", "-1", "nan", "x", "é", "東京", "\u202e", "\U0001f600", "\ufeff", "a\u0000b", "\x1b[31m"),
    *("%s", "{}", "{0}", "[bold]", "$HOME", "~", "~nobody/x", "..", "./.", "x" * 300, "x/" * 3000, "a=b", "a:b,c=d"),
    *("--", "-", "!!x", "&a", "*a", "bpe", "stride", "quick", "wiki-en", "tiny.yaml", "texts.jsonl", "texts.*", "null"),
)
CONTAINERS: tuple[Any, ...] = ([], {}, [[]], [{}], {"": None}, [None], {"name": None}, [0, "0"], {"a": {"b": {"c": 1}}})
VALUES: tuple[Any, ...] = (None, True, False, *NUMBERS, *TEXTS, *CONTAINERS)

SNIPPETS = (
    *("&a ", "*a", "<<: *a\n", "<<: {train: {lr: 1}}\n", "!!python/name:os.system ", "!!binary aGk=", "!x "),
    *("- ", ": ", "? ", "? [a]\n: b\n", "{", "}", "[", "]", "'", '"', "|\n  ", ">\n", "#", "---\n", "...\n"),
    *("%YAML 1.1\n", "\t", "\r", "\x00", "\x85", "\u2028", "\ufeff", "\ud7ff", "1e400", ".nan"),
    *(".inf", "0x10", "1_0__0", "12:30"),
)


# --- files


Keys = Sequence[tuple[tuple[str, ...], tuple[Any, ...]]]


def suite_file(rng: random.Random, texts: Sequence[str], keys: Keys | None = None) -> bytes:
    """One of these suites, changed in one to four ways; `keys` of other files than suites."""
    text = rng.choice(texts)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = _changed_tree(rng, text, keys or KEYS) if rng.random() < 0.6 else rng.choice(_OF_TEXT)(rng, text)
    data = text.encode("utf-8", "surrogatepass")
    return rng.choice(_OF_BYTES)(rng, data) if rng.random() < 0.15 else data


def _changed_tree(rng: random.Random, text: str, keys: Keys) -> str:
    """The document with a value or a key of its tree changed; as text is, where it has no tree any more."""
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return rng.choice(_OF_TEXT)(rng, text)
    if not isinstance(tree, dict) or not tree:
        return rng.choice(_OF_TEXT)(rng, text)
    tree = copy.deepcopy(tree)
    if rng.random() < 0.5:
        path, values = rng.choice(keys)
        _put(rng, tree, path, rng.choice(values) if values and rng.random() < 0.5 else rng.choice(VALUES))
    else:
        holder, key = rng.choice(_some_places(tree))
        rng.choice((_replaced, _replaced, _without, _renamed, _wrapped, _moved))(rng, tree, holder, key)
    try:
        flow = rng.choice((None, True, False))
        return yaml.safe_dump(tree, allow_unicode=rng.random() < 0.5, default_flow_style=flow)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _some_places(tree: Any) -> list[tuple[Any, Any]]:
    """The first thousands: aliases of aliases have places without end."""
    return list(islice(_places(tree), 5000))


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def _put(rng: random.Random, tree: Any, path: Sequence[str], value: Any) -> None:
    """At a path of keys, of which `*` is any that is there."""
    for key in path[:-1]:
        known = list(tree) if isinstance(tree, dict) else []
        tree = tree.setdefault(rng.choice(known) if key == "*" and known else key, {}) if isinstance(tree, dict) else {}
    if isinstance(tree, dict):
        tree[path[-1]] = value


def _replaced(rng: random.Random, tree: Any, holder: Any, key: Any) -> None:
    holder[key] = rng.choice(VALUES)


def _without(rng: random.Random, tree: Any, holder: Any, key: Any) -> None:
    del holder[key]


def _renamed(rng: random.Random, tree: Any, holder: Any, key: Any) -> None:
    if isinstance(holder, dict):
        name = rng.choice((rng.choice(KEYS)[0][-1], str(key)[1:], f"{key}s", *rng.sample(TEXTS, 2)))
        holder[name] = holder.pop(key)


def _wrapped(rng: random.Random, tree: Any, holder: Any, key: Any) -> None:
    for _ in range(rng.choice((1, 1, 2, 40))):
        holder[key] = [holder[key]] if rng.random() < 0.5 else {rng.choice(KEYS)[0][-1]: holder[key]}


def _moved(rng: random.Random, tree: Any, holder: Any, key: Any) -> None:
    other, place = rng.choice(_some_places(tree))
    holder[key] = copy.deepcopy(other[place])


def _inserted(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(SNIPPETS) + text[at:]


def _truncated(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(len(text) + 1)]


def _lines_mixed(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at, line = rng.randrange(len(lines)), rng.choice(lines)
    kind = rng.randrange(4)
    if kind == 0:
        lines.insert(at, line)
    elif kind == 1:
        lines[at] = "  " * rng.randrange(3) + lines[at].lstrip()
    elif kind == 2:
        del lines[at]
    else:
        lines[at] = lines[at].replace(" ", "\t", 1)
    return "".join(lines)


def _characters_lost(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + text[at + rng.choice((1, 1, 2, 9)) :]


def _other_line_ends(rng: random.Random, text: str) -> str:
    return text.replace("\n", rng.choice(("\r\n", "\r", "\u2028", "\n\n")))


def _appended(rng: random.Random, text: str) -> str:
    return text + rng.choice(
        (
            "name: again\nname: again\n",
            "train: {lr: 1}\n",
            "<<: *a\n",
            "name: " + "[" * rng.choice((10, 200, 5000)),
            "name: " + "{a: " * rng.choice((10, 200, 5000)),
            "name: " + "[" * 900 + "]" * 900 + "\n",
            "rows: {" + ", ".join(f"r{i}: {{patcher: stride}}" for i in range(300)) + "}\n",
            "bomb: [" + ", ".join(f"&b{i} [{', '.join([f'*b{i - 1}' if i else 'x'] * 9)}]" for i in range(9)) + "]\n",
            "- a\n",
            "? " * 2000 + "\n",
            "name: " + "9" * 5000 + "\n",
            "name: 'never closed\n",
            "name: |\n" + " a\n" * 1000,
        )
    )


def _nothing_left(rng: random.Random, text: str) -> str:
    return rng.choice(("", "\n", "# a comment\n", "---\n", "null\n", "3\n", "[]\n", "{}\n", '"text"\n', "- a\n- b\n"))


_OF_TEXT: tuple[Callable[[random.Random, str], str], ...] = (
    *(_inserted, _inserted, _truncated, _lines_mixed, _lines_mixed, _characters_lost, _other_line_ends, _appended),
    *(_appended, _nothing_left),
)


def _bytes_flipped(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if out:
            out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def _bytes_inserted(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((b"\xff", b"\xc3", b"\x00", b"\xed\xa0\x80", b"\xf5\x80\x80\x80")) + data[at:]


def _other_encoding(rng: random.Random, data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")))


def _noise(rng: random.Random, data: bytes) -> bytes:
    return rng.randbytes(rng.choice((1, 30, 4000)))


_OF_BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _bytes_flipped, _bytes_inserted, _bytes_inserted, _other_encoding, _noise
)  # fmt: skip


# --- plug-ins and data files


_SOURCES = (
    *("raise SystemExit(3)\n", "import no_such_module\n", "1 / 0\n", "\x00", "while 1\n", "x = '\n", "raise\n"),
    *("@register('stride')\nclass Other(Patcher):\n    def segment(self, data):\n        return None\n",),
    *("@register('fuzz abstract')\nclass Abstract(Patcher):\n    pass\n", "@register('')\nclass Nameless:\n    pass\n"),
)
_BODIES = (
    *("None", "[True] * len(data)", "np.zeros(len(data), bool)", "np.ones(len(data))", "np.ones(3, bool)", "data"),
    *("1 / 0", "np.ones((len(data), 2), bool)", "self.segment(data)", "exit(1)", "np.random.random(len(data)) < 0.5"),
)


_EDITS = (
    *(("// 2", "// 3"), ("max(1, ", "max(2, "), (" == 0", " < 1"), ("class Halves", "class Thirds"), ("\n", "\n\n")),
    *(("import numpy as np\n", "import numpy as np  # arrays\n"), ("segment(self", "segment(this"), ("    ", "  ")),
)


def edited_plugin(rng: random.Random, source: str) -> bytes:
    """A plug-in that works as well, of which some do the same as before."""
    return source.replace(*rng.choice(_EDITS)).encode()


def plugin_file(rng: random.Random, source: str) -> bytes:
    """A plug-in whose segment is wrong, that does something when it is imported, or whose text is damaged."""
    kind = rng.randrange(4)
    if kind == 0:
        head, _, _ = source.rpartition("return ")
        source = f"{head}return {rng.choice(_BODIES)}\n"
    elif kind == 1:
        lines = source.splitlines(keepends=True)
        lines.insert(rng.choice((0, 2, len(lines))), rng.choice(_SOURCES))
        source = "".join(lines)
    else:
        source = rng.choice((_inserted, _truncated, _lines_mixed, _characters_lost, _nothing_left))(rng, source)
    data = source.encode("utf-8", "surrogatepass")
    return rng.choice(_OF_BYTES)(rng, data) if kind == 3 else data


_HEADS = (
    *(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"PK\x03\x04\x14\x00", b"\x1f\x8b\x08\x00", b"%PDF-1.7\n%\xe2\xe3"),
    *(b"ARROW1\x00\x00", b"\x7fELF\x02\x01\x01", b"SQLite format 3\x00", b"\x93NUMPY\x01\x00", b"BZh9", b"PAR1"),
    b"\xfd7zXZ\x00",
    *(b"(\xb5/\xfd", b"GIF89a", b"\xff\xd8\xff\xe0", b"OggS", b"7z\xbc\xaf'\x1c", b"\xef\xbb\xbf", b"\xff\xfe", b""),
)


def data_file(rng: random.Random, table: bytes, lines: bytes) -> bytes:
    """A parquet file or JSON lines that are damaged, or what is no text at all."""
    kind = rng.randrange(4)
    if kind == 0:
        return table[: rng.randrange(len(table))] if rng.random() < 0.4 else _bytes_flipped(rng, table)
    if kind == 1:
        return rng.choice(_OF_BYTES)(rng, lines)
    if kind == 2:
        return table if rng.random() < 0.3 else lines + rng.choice(_HEADS) + rng.randbytes(100)
    return rng.choice(_HEADS) + rng.randbytes(rng.choice((0, 20, 3000)))


# --- every key that there is


def _keys() -> list[tuple[tuple[str, ...], tuple[Any, ...]]]:
    """Paths of keys of suites, each with the words that its type knows."""
    sections: list[tuple[tuple[str, ...], Any]] = [
        *(((), SuiteConfig), (("data",), DataConfig), (("data", "dataset"), DatasetConfig), (("train",), TrainConfig)),
        *((("eval", "x"), DataConfig), (("launch",), LaunchConfig), (("rows", "*"), RowConfig)),
        *((("rows", "*", "train"), TrainConfig), (("rows", "*", "options"), MODELS["harness"])),
        *(((section,), MODELS[kind]) for section, kind in (("model", "harness"), *((k, k) for k in list(MODELS)[1:]))),
    ]
    sections += [(("rows", "*", "patcher"), patchers.get(name)) for name in patchers.names()]
    out: list[tuple[tuple[str, ...], tuple[Any, ...]]] = [
        ((*path, field.name), _words(field.type)) for path, cls in sections for field in dataclasses.fields(cls)
    ]
    out.append((("rows", "*", "patcher", "name"), tuple(patchers.names())))
    out += [(("tasks",), ([name], [{"name": name, "x": 1}], [name, name])) for name in tasks.names()]
    swept = ("train.bytes", "train_flops", "bytes_per_patch", "train.lr")
    return out + [(("sweep", key), ([1e6], [1, 2], [0])) for key in swept]


def _words(hint: Any) -> tuple[Any, ...]:
    """The words of the Literals in an annotation that is text, or resolved."""
    if isinstance(hint, str):
        return tuple(part.strip("'\" ") for part in hint.partition("Literal[")[2].partition("]")[0].split(",") if part)
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return tuple(word for part in typing.get_args(hint) for word in _words(part))


def _claim_keys() -> Keys:
    """The same of files of claims."""
    claim = ("claims", "*")
    sections: list[tuple[tuple[str, ...], Any]] = [
        ((), ClaimsConfig), (claim, ClaimConfig), ((*claim, "source"), Origin),
        *(((*claim, "test"), predicates.get(name)) for name in predicates.names()),
    ]  # fmt: skip
    out = [((*path, field.name), _words(field.type)) for path, cls in sections for field in dataclasses.fields(cls)]
    names, rows = tuple(predicates.names()), ("stride", "words", "bytes", ["stride", "words"])
    suites = ("tiny", "tiny.yaml", "plugged", "none")
    test = (*claim, "test")
    return [*out, ((*test, "name"), names), ((*test, "row"), rows), ((*test, "rows"), rows), ((*test, "suite"), suites)]


KEYS, CLAIM_KEYS = _keys(), _claim_keys()


# --- command lines


def command_line(rng: random.Random, root: Any, good: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """A call of one of the commands: most of what it needs, some of what it can take, and then mostly something wrong.

    `root` is what typer makes of the app, `good` has values by the names of parameters.
    """
    path, command = rng.choice(list(_commands(root)))
    args = [*path]
    options: list[str] = []
    for parameter in command.params:
        wanted = parameter.required or rng.random() < (0.15 if parameter.param_type_name == "option" else 0.4)
        if not wanted or rng.random() < 0.03:
            continue
        known = good.get(parameter.name, ())
        for _ in range(rng.choice((1, 1, 1, 2)) if parameter.multiple or parameter.nargs == -1 else 1):
            value = rng.choice(known) if known and rng.random() < 0.8 else odd_text(rng)
            if parameter.param_type_name == "option":
                name = rng.choice(parameter.opts)
                flag = parameter.is_flag
                options += [name] if flag else [f"{name}={value}"] if rng.random() < 0.3 else [name, value]
            else:
                args.append(value)
    args = [*args, *options] if rng.random() < 0.8 else [*path, *options, *args[len(path) :]]
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        rng.choice((_dropped, _doubled, _swapped, _odd, _stray))(rng, args)
    return tuple(args)


def odd_text(rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return str(rng.choice(NUMBERS))
    if kind == 1:
        return override(rng)
    return rng.choice((*TEXTS, "\udcff", "a\udc80b", "no/such/file", "tiny.yaml/deep", "results", "/dev/null", "-1"))


def override(rng: random.Random) -> str:
    path, values = rng.choice(KEYS)
    value = rng.choice(values) if values and rng.random() < 0.5 else rng.choice(VALUES)
    rows = ("stride", "bytes", "more", "*")
    dotted = ".".join(rng.choice(rows) if key == "*" else key for key in path)
    said = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
    return f"{dotted}={said}"


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        inside = hasattr(command, "commands")
        yield from _commands(command, (*path, name)) if inside else [((*path, name), command)]


def _dropped(rng: random.Random, args: list[str]) -> None:
    if args:
        del args[rng.randrange(len(args))]


def _doubled(rng: random.Random, args: list[str]) -> None:
    if args:
        args.insert(rng.randrange(len(args) + 1), rng.choice(args))


def _swapped(rng: random.Random, args: list[str]) -> None:
    if len(args) > 1:
        a, b = rng.sample(range(len(args)), 2)
        args[a], args[b] = args[b], args[a]


def _odd(rng: random.Random, args: list[str]) -> None:
    if args:
        args[rng.randrange(len(args))] = odd_text(rng)


def _stray(rng: random.Random, args: list[str]) -> None:
    stray = rng.choice(("--", "-", "-x", "--jsn", "--json=1", "--help", "-h", "", "--plugin"))
    args.insert(rng.randrange(len(args) + 1), stray)
