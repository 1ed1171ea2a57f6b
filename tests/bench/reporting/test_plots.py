"""Pictures show what tables say, where they say it, the same bytes every time; what has nothing to show says so."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from record_builder import make_failed, make_record, put

from bench.records.record import Record
from bench.records.statistics import RESAMPLES
from bench.reporting.formats import Cell
from bench.reporting.plots import style
from bench.reporting.plots.catalog import KINDS, drawn, plot
from bench.reporting.plots.rows import APART, FAMILIES, Point, frontier
from bench.reporting.table import Comparison
from patchers.errors import BenchError

FEW = 200


def records(seeds: int = 2, **bpb: float) -> list[Record]:
    out = []
    for index, (row, value) in enumerate(bpb.items()):
        for seed in range(seeds):
            changes = {
                "patcher.bytes_per_patch.test": 4.0 + index,
                "flops.per_byte.total": 1e6 * (1 + index),
                "flops.train": 1e12 * (1 + index),
                "cost.train_bytes_per_second": 5000.0 * (1 + index),
            }
            record = make_record(row.replace("_", "-"), seed, bpb=value, documents=40, changes=changes)
            out.append({**record, "row_index": index})
    return out


def standard() -> list[Record]:
    """Of every family, one that failed among them."""
    out = records(stride=2.30, entropy=2.25, bpe=2.35, bpe_leaky=1.9, token_lm=2.4)
    for record in out:
        if record["row"] == "bpe":
            put(record, "patcher.priced", "start")
        if record["row"] == "bpe-leaky":
            put(record, "config.leaky", True)
        if record["row"] == "token-lm":
            put(record, "config.model.kind", "token_lm")
    return [*out, {**make_failed("broken"), "row_index": 9}]


def sweep(*rows: str, seeds: int = 2) -> list[Record]:
    """`stride` loses to all others at little compute, and less at more."""
    out = []
    for index, (row, value) in enumerate((row, value) for row in rows for value in (100_000, 400_000, 1_600_000)):
        bpb = 2.0 + 200 / value**0.5 - (0 if row == rows[0] else 0.1 * 100_000 / value)
        changes = {"config.sweep": {"row": row, "key": "train.bytes", "value": value}, "flops.train": value * 3e6}
        for seed in range(seeds):
            record = make_record(f"{row}@{value}", seed, bpb=bpb, documents=40, changes=changes)
            out.append({**record, "row_index": index})
    return out


def noisy() -> list[Record]:
    out = records(stride=2.0, entropy=1.9)
    for record in out:
        documents = record["tasks"]["bpb"]["metrics"]["bpb"]["documents"]
        metrics = {
            f"on_{level}": {
                "unit": "bits/byte",
                "lower_is_better": True,
                "documents": [[name, bits * (1 + level / 20), count] for name, bits, count in documents],
            }
            for level in (0, 5, 20)
        }
        values = {f"on_{kind}_{level}": 2 + level / 10 for kind in ("drop", "upper_case") for level in (0, 5, 20)}
        values |= {"on_drop_5_noisy": 9.0, "after_drop": 9.0}
        record["tasks"]["noise"] = {"version": 1, "metrics": metrics, "values": values}
    return out


def fast(found: list[Record], **choices: Any) -> Comparison:
    return Comparison(found, resamples=FEW, **choices)


def axes_of(figure: Figure | None) -> Axes:
    assert figure is not None
    return figure.axes[0]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def marked(axes: Axes) -> Iterator[tuple[float, float]]:
    """The points that have a marker."""
    for line in axes.get_lines():
        if line.get_marker() not in ("None", None, ""):
            yield from zip(np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float), strict=True)


# --- which pictures there are


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (standard(), {"differences", "train_flops", "patch_size", "inference_flops", "train_speed"}),
        (sweep("stride", "entropy"), {"train_flops", "gap"}),
        (
            noisy(),
            {"differences", "train_flops", "patch_size", "inference_flops", "train_speed", "noise", "noise_kinds"},
        ),
        ([make_failed("a")], set()),
        (records(alone=2.0), set()),
    ],
    ids=["rows", "sweep", "noise", "failed", "one row"],
)
def test_a_picture_for_all_that_records_have_and_nothing_else(found: list[Record], expected: set[str]) -> None:
    compared = fast(found)
    assert {kind for kind in KINDS if drawn(compared, kind) is not None} == expected


def test_the_speed_of_writing_where_it_was_measured() -> None:
    found = records(a=2.0, b=2.1)
    for record in found:
        rate = {"decode_bytes_per_second": 100.0 if record["row"] == "a" else 300.0}
        record["tasks"]["speed"] = {"version": 1, "metrics": {}, "values": rate}
    assert {x for x, _ in marked(axes_of(drawn(fast(found), "decode_speed")))} == {100.0, 300.0}


def test_a_kind_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(BenchError, match=r"unknown kind of plot 'diferences', did you mean 'differences'"):
        plot(fast(records(a=2.0, b=2.1)), "diferences")
    with pytest.raises(BenchError, match=r"nothing to draw for 'gap' .* choose another --kind"):
        plot(fast(records(a=2.0, b=2.1)), "gap")


def test_what_cannot_be_compared_is_not_drawn_together() -> None:
    found = records(a=2.0, b=2.1)
    put(found[-1], "data.splits.test.fingerprint", "f" * 64)
    with pytest.raises(BenchError, match=r"data\.splits\.test\.fingerprint"):
        fast(found)


# --- what is in them


def test_points_are_those_of_the_table_and_intervals_those_of_the_differences() -> None:
    compared = fast(standard())
    table = compared.table(["row", "bpb", "bytes_per_patch", "difference"])
    axes = axes_of(drawn(compared, "patch_size"))
    rows = [row for row in table.rows if row.marked != "failed"]
    expected = {(table.cell(r.label, "bytes_per_patch").value, table.cell(r.label, "bpb").value) for r in rows}
    assert set(marked(axes)) == expected
    heights = [tuple(np.asarray(line.get_ydata(), float)) for line in axes.get_lines()]
    bars = [ends for ends in heights if len(ends) == 2]
    for row in rows:
        value, difference = (table.cell(row.label, name) for name in ("bpb", "difference"))
        assert isinstance(value.value, float)
        assert isinstance(difference.value, float)
        if difference.low is None or difference.high is None:
            assert (row.label, difference.value) == ("stride", 0.0), "the reference has no bar"
        low, high = difference.low or 0.0, difference.high or 0.0
        bar = (value.value + low - difference.value, value.value + high - difference.value)
        assert any(ends == pytest.approx(bar, abs=1e-12) for ends in bars)
    assert {row.label for row in rows} == set(texts(axes))


def test_leaky_rows_are_hollow_and_have_their_own_place_in_the_legend() -> None:
    figure = drawn(fast(standard()), "inference_flops")
    faces = {
        round(float(np.asarray(line.get_xdata(), float)[0])): line.get_markerfacecolor()
        for line in axes_of(figure).get_lines()
        if line.get_marker() not in ("None", "")
    }
    assert faces[4_000_000] == style.PAPER, "bpe-leaky is the fourth"
    assert faces[1_000_000] == FAMILIES["causal cut"][0]
    assert figure is not None
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= set(FAMILIES) - {APART["pretrained"]}


def test_differences_are_sorted_and_say_their_numbers() -> None:
    compared = fast(standard(), reference="stride")
    axes = axes_of(drawn(compared, "differences"))
    ticks = [tick.get_text() for tick in axes.get_yticklabels()]
    assert ticks == ["entropy", "stride", "bpe", "token-lm", "bpe-leaky"], "the best above, then who is not ranked"
    assert texts(axes)[1] == "reference"
    table = compared.table(["row", "difference"])
    assert {x for x, _ in marked(axes)} == {table.cell(label, "difference").value for label in ticks}


def test_a_sweep_is_a_line_a_row_named_at_its_end() -> None:
    axes = axes_of(drawn(fast(sweep("stride", "entropy", "bpe")), "train_flops"))
    assert texts(axes) == ["stride", "entropy", "bpe"]
    assert axes.get_xscale() == "log"
    assert sorted({x for x, _ in marked(axes)}) == [3e11, 1.2e12, 4.8e12]
    colours = [line.get_color() for line in axes.get_lines()]
    assert len(set(colours)) == 3


def test_the_gap_is_the_paired_difference_at_each_budget() -> None:
    compared = fast(sweep("stride", "entropy", "bpe"))
    axes = axes_of(drawn(compared, "gap"))
    assert texts(axes) == ["entropy", "bpe"]
    assert "difference to stride" in axes.get_ylabel()
    expected = compared.bootstrap("bpb.bpb").difference("entropy@400000", "stride@400000")
    assert expected is not None
    assert (400_000, expected.value) in set(marked(axes))
    of_lines = axes_of(drawn(compared, "train_flops")).get_lines()
    assert axes.get_lines()[-1].get_color() == of_lines[-1].get_color(), "a row has one colour in all pictures"


def test_a_sweep_over_two_keys_has_a_line_for_each_of_the_others() -> None:
    found = sweep("stride")
    for record in found:
        record["config"]["sweep"]["others"] = {"model.latent_width": 64}
    again = sweep("stride")
    for record in again:
        record["row"] = record["row"] + "@128"
        record["config"]["sweep"]["others"] = {"model.latent_width": 128}
    axes = axes_of(drawn(fast([*found, *again]), "train_flops"))
    assert texts(axes) == ["stride model.latent_width=64", "stride model.latent_width=128"]


def test_robustness_over_the_levels_of_noise() -> None:
    compared = fast(noisy())
    axes = axes_of(drawn(compared, "noise"))
    assert texts(axes) == ["stride", "entropy"]
    table = compared.table(["row", "noise.on_5"])
    assert (5.0, table.cell("entropy", "noise.on_5").value) in set(marked(axes))
    figure = drawn(compared, "noise_kinds")
    assert figure is not None
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["drop", "upper_case"]
    assert set(marked(figure.axes[1])) == {(0.0, 2.0), (5.0, 2.5), (20.0, 4.0)}


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.booleans()), min_size=1, max_size=9),
    st.sampled_from([-1, 1]),
)
def test_nothing_beats_the_frontier_and_it_beats_all_else(rows: list[tuple[int, int, bool]], better: int) -> None:
    leaky = "leaky, not ranked"
    points = [Point(str(i), leaky if own else "causal cut", x, Cell(y)) for i, (x, y, own) in enumerate(rows)]
    ranked = [p for p in points if p.family != leaky]
    best = frontier(points, better)
    assert leaky not in {p.family for p in best}
    assert [p.x for p in best] == sorted(p.x for p in best)

    def beats(a: Point, b: Point) -> bool:
        no_worse = better * a.x >= better * b.x and a.value <= b.value
        return no_worse and (a.x, a.value) != (b.x, b.value)

    assert {(p.x, p.value) for p in best} == {
        (p.x, p.value) for p in ranked if not any(beats(other, p) for other in ranked)
    }


# --- how they are drawn


def test_labels_do_not_cover_one_another() -> None:
    rng = np.random.default_rng(0)
    with style.styled():
        figure, axes = style.new_figure()
        points = [(float(x), float(y), f"some row {i}", "#000000") for i, (x, y) in enumerate(rng.random((14, 2)))]
        axes.plot([x for x, *_ in points], [y for _, y, *_ in points], "o")
        style.label_points(axes, points)
        boxes = [text.get_window_extent() for text in axes.texts]
    extents = np.array([box.extents for box in boxes])
    covered = sum(style.overlaps(box, extents[:i]).sum() for i, box in enumerate(extents))
    assert covered < 0.05 * boxes[0].width * boxes[0].height
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_spread_labels_keep_their_order_and_their_distance(wanted: list[float]) -> None:
    got = style.spread(wanted, 10)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gaps = np.diff([got[i] for i in order])
    assert (gaps >= 10 - 1e-6).all()
    apart = sorted(wanted)
    if all(b - a >= 10 for a, b in itertools.pairwise(apart)):
        np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_the_same_records_give_the_same_file(tmp_path: Path, kind: str) -> None:
    contents = []
    for name in ("one", "two"):
        path = tmp_path / name / f"x.{kind}"
        style.write(plot(fast(standard()), "differences"), path)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert not re.search(rb"20\d\d-\d\d-\d\d|matplotlib v", contents[0])


def test_a_file_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    figure = plot(fast(standard()), "differences")
    with pytest.raises(BenchError, match=r"end the name in \.svg, \.png or \.pdf"):
        style.write(figure, tmp_path / "x.docx")
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="give another file"):
        style.write(figure, tmp_path / "file" / "x.svg")


def test_settings_of_the_user_change_nothing_and_stay_as_they_are(tmp_path: Path) -> None:
    compared = fast(standard())
    style.write(plot(compared, "patch_size"), tmp_path / "a.svg")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        style.write(plot(compared, "patch_size"), tmp_path / "b.svg")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_lines_can_be_told_apart_without_colour() -> None:
    looks = {(style.MARKERS[i % len(style.MARKERS)], str(style.DASHES[i // 8 % 4])) for i in range(32)}
    assert len(looks) == 32
    assert RESAMPLES >= 10_000, "what is published is resampled as often as tables are"


@pytest.mark.parametrize(
    ("name", "colour"), [(n, getattr(style, n)) for n in ("INK", "DIM", "BLUE", "ORANGE", "GREEN")]
)
def test_colours_carry_text_on_white(name: str, colour: str) -> None:
    """Contrast of 4.5 to 1, as WCAG asks of text."""

    def luminance(value: str) -> float:
        channels = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert (luminance(style.PAPER) + 0.05) / (luminance(colour) + 0.05) >= 4.5, name
