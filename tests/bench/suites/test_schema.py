"""The JSON Schema of suites takes what the loader takes, and refuses what is misspelt."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bench.cli.main import main
from bench.suites.catalog import shipped_suites
from bench.suites.config import SuiteConfig, load_suite
from bench.suites.schema import notes_of, schema
from bench.system.yaml import keys_of, parse
from patchers.errors import BenchError


@pytest.fixture(scope="module")
def validator() -> Any:
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def tree(path: Path) -> Any:
    return parse(path.read_text(encoding="utf-8"), path.name).value


@pytest.mark.parametrize("path", shipped_suites().values(), ids=shipped_suites())
def test_suites_that_ship_are_valid(validator: Any, path: Path) -> None:
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(tree(path))]
    assert not errors


def keys(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from keys(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from keys(item, (*path, index))


FREE = ("rows", "eval")
"""Below these a key is a name of the user's."""


@pytest.mark.parametrize("path", shipped_suites().values(), ids=shipped_suites())
def test_every_misspelt_key_is_refused(validator: Any, path: Path) -> None:
    for at in list(keys(tree(path))):
        if len(at) == 2 and at[0] in FREE:
            continue
        wrong = copy.deepcopy(tree(path))
        holder = wrong
        for step in at[:-1]:
            holder = holder[step]
        holder[f"{at[-1]}x"] = holder.pop(at[-1])
        assert not validator.is_valid(wrong), at


SMALL: dict[str, Any] = {"data": {"corpus": "wiki-en"}, "rows": {"a": {"patcher": "stride"}}}


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"plugins": ["m.py"], "rows": {"a": {"patcher": "m"}, "b": {"patcher": {"name": "m", "k": 1}}}}, True),
        ({"rows": {"a": {"model": "byte_lm", "options": {"window": 9}}}}, True),
        ({"data": {"files": "a.txt"}, "eval": {"fr": "wiki-fr"}}, True),
        ({"rows": {"a": {"model": {"hf": "x", "patcher": "stride"}}}}, False),
        ({"rows": {"a": {"model": {"hf": "x"}, "patcher": "stride"}}}, False),
        ({"rows": {"a": {"model": "byte_lm", "options": {"local_width": 9}}}}, False),
        ({"rows": {"a": {"patcher": {"name": "stride", "strid": 9}}}}, False),
        ({"rows": {"a": {"patcher": "stride", "options": {"width": 9}}}}, False),
        ({"rows": {}}, False),
        ({"data": {"corpus": "wiki-en", "files": ["a"]}}, False),
        ({"data": {"corpus": "wiki-e"}}, False),
        ({"data": {"corpus": "wiki-en", "folder": "x"}}, False),
        ({"seeds": []}, False),
        ({"train": {"lr": "fast"}}, False),
        ({"train": {"lr": 0}}, False),
        ({"match": "flops"}, False),
        ({"tasks": [{"name": "bpb", "level": 1}]}, False),
        ({"sweep": {"train.byte": [1]}}, False),
    ],
)
def test_it_agrees_with_the_loader(tmp_path: Path, validator: Any, changes: dict[str, Any], valid: bool) -> None:
    suite = SMALL | changes
    assert validator.is_valid(suite) == valid
    if "plugins" not in suite:  # which would have to be there
        (tmp_path / "s.yaml").write_text(json.dumps(suite))
        if valid:
            load_suite(str(tmp_path / "s.yaml"))
        else:
            with pytest.raises(BenchError):
                load_suite(str(tmp_path / "s.yaml"))


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_every_key_of_a_suite_says_what_it_is() -> None:
    notes = notes_of(SuiteConfig)
    assert not [field.name for field in keys_of(SuiteConfig) if field.name not in notes]
    assert notes["match_to"] == "the row whose FLOPs the others get; by default the first"
    assert schema()["properties"]["log"]["description"].startswith("Curves while a model is trained")
