"""Per-document sums in columns: exact, smaller, read as before, and named where they are damaged."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_builder import make_record

from bench import records
from bench.records.packing import FEWEST, packed, unpacked
from patchers.errors import BenchError

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 0.0, -0.0, 1e-320]),
)


def with_documents(documents: list[Any]) -> dict[str, Any]:
    return make_record(changes={"tasks.bpb.metrics.bpb.documents": documents})


def same(one: Any, two: Any) -> bool:
    """Equal, and of the same kinds: 1 and 1.0, and 0.0 and -0.0, are told apart."""
    return json.dumps(one) == json.dumps(two)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.text(st.characters(exclude_categories=[])), min_size=1, max_size=3 * FEWEST, unique=True),
    data=st.data(),
)
def test_what_is_packed_comes_back_to_the_bit(ids: list[str], data: st.DataObject, tmp_path: Path) -> None:
    kinds = data.draw(st.sampled_from([NUMBERS, st.integers(-(2**63), 2**63), st.floats(-1e300, 1e300)]))
    documents = [[name, data.draw(kinds), data.draw(kinds)] for name in ids]
    record = with_documents(documents)
    held = packed(record)
    assert ("columns" in held) == (len(documents) >= FEWEST)
    again = unpacked(json.loads(json.dumps(held))) if "columns" in held else held
    assert same(again["tasks"], record["tasks"])
    read = records.read(records.write(tmp_path, record))
    assert same(read["tasks"]["bpb"]["metrics"]["bpb"]["documents"], documents)


def test_metrics_share_columns_and_a_file_takes_half_of_the_room(tmp_path: Path) -> None:
    record = make_record(characters_per_byte=1.0)
    path = records.write(tmp_path, record)
    held = json.loads(path.read_text("utf-8"))
    assert set(held["columns"]) == {"bpb.bpb.id", "bpb.bpb.total", "bpb.bpb.count"}, "bpc has the same numbers here"
    assert held["tasks"]["bpb"]["metrics"]["bpc"]["documents"] == held["tasks"]["bpb"]["metrics"]["bpb"]["documents"]
    assert path.stat().st_size < 0.5 * len(records.content(records.read(path)))
    assert held["schema"] == 2, "a patchbench that reads schema 1 alone must not call it damaged"
    assert records.read(path)["schema"] == 1


def test_the_same_record_makes_the_same_columns_whatever_the_order_of_its_metrics(tmp_path: Path) -> None:
    record = make_record(characters_per_byte=0.5)
    first = records.write(tmp_path, record).read_bytes()
    metrics = record["tasks"]["bpb"]["metrics"]
    record["tasks"]["bpb"]["metrics"] = dict(reversed(metrics.items()))
    assert records.write(tmp_path, record).read_bytes() == first


def test_files_from_before_are_read_and_have_the_same_checksum(tmp_path: Path) -> None:
    record = make_record()
    path = records.write(tmp_path, record)
    expected, now = records.read(path), json.loads(path.read_bytes())
    path.write_bytes(records.content(expected))
    before = json.loads(path.read_bytes())
    assert isinstance(before["tasks"]["bpb"]["metrics"]["bpb"]["documents"], list)
    assert before["schema"] == 1
    assert before["checksum"] == now["checksum"]
    assert same(records.read(path), expected)


def test_every_flipped_byte_of_a_packed_record_is_noticed(tmp_path: Path) -> None:
    path = records.write(tmp_path, make_record())
    whole, expected = path.read_bytes(), records.read(path)
    rng = np.random.default_rng(0)
    begin = whole.index(b'"columns"')
    for at in [*rng.integers(begin, len(whole), 300), *rng.integers(0, begin, 100)]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            got = records.read(path)
        except BenchError as error:
            assert str(path) in str(error)  # noqa: PT017  either outcome is right, but not a third one
        else:
            assert same(got, expected), "a flipped byte changed a value"


@pytest.mark.parametrize(
    "damage",
    [
        lambda held: held["columns"].pop("bpb.bpb.total"),
        lambda held: held.pop("columns"),
        lambda held: held.pop("tasks"),
        lambda held: held.update(tasks=[1]),
        lambda held: held["columns"].update({"bpb.bpb.count": ""}),
        lambda held: held["columns"].update({"bpb.bpb.count": "xAAAA"}),
        lambda held: held["columns"].update({"bpb.bpb.count": held["columns"]["bpb.bpb.id"]}),
        lambda held: held["columns"].update({"bpb.bpb.count": 5}),
        lambda held: held["columns"].update({"bpb.bpb.count": "i" + held["columns"]["bpb.bpb.id"][1:]}),
    ],
)
def test_columns_that_cannot_be_read_are_named(tmp_path: Path, damage: Any) -> None:
    path = records.write(tmp_path, make_record())
    held = json.loads(path.read_bytes())
    damage(held)
    path.write_text(json.dumps(held), "utf-8")
    with pytest.raises(BenchError, match=f"{re.escape(str(path))} is damaged .*delete it and run the suite again"):
        records.read(path)
