"""Fits of sweeps: planted curves are found again, crossings only where something was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import inf, isinf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_builder import make_record

from bench.cli.main import main
from bench.records.compute_optimal import Optimum, optima_of
from bench.records.fits import Crossing, Fits, fit, fits_of
from bench.records.record import Record, write
from bench.reporting.report.tables import best_sizes, tables
from bench.reporting.table import Comparison
from patchers.errors import BenchError

BUDGETS = (204_800, 409_600, 819_200, 1_638_400, 3_276_800)
FLOPS = 3e6  # a byte of training


def law(compute: float, floor: float, height: float, exponent: float) -> float:
    """`height` above the floor at 1e12 FLOPs."""
    return floor + height * (compute / 1e12) ** -exponent


def sweep(
    row: str,
    curve: tuple[float, float, float],
    seeds: Sequence[int] = (0,),
    budgets: Sequence[int] = BUDGETS,
    **changes: Any,
) -> list[Record]:
    flops = changes.pop("flops", FLOPS)
    return [
        make_record(
            f"{row}@{budget}",
            seed,
            bpb=law(flops * budget, *curve),
            changes={
                "config.sweep": {"row": row, "key": "train.bytes", "value": budget},
                "flops.train": flops * budget,
                "cost.train_bytes": budget,
                **changes,
            },
        )
        for seed in seeds
        for budget in budgets
    ]


# --- the curve itself


@pytest.mark.parametrize(("floor", "exponent"), [(1.0, 0.3), (0.0, 0.1), (1.7, 0.9), (0.5, 0.05)])
def test_a_power_law_is_found_again(floor: float, exponent: float) -> None:
    compute = np.geomspace(1e11, 1e14, 6)
    losses = np.array([[law(c, floor, height, exponent) for c in compute] for height in (0.5, 1.0)])
    found = fit(compute, losses)
    assert found.exponent == pytest.approx(exponent, rel=0.02)
    assert found.floor == pytest.approx(floor, abs=0.03)
    assert found.at(compute) == pytest.approx(losses, rel=1e-4)
    height = found.scale * 1e12**-found.exponent
    assert height == pytest.approx([0.5, 1.0], rel=0.05)


def test_the_fit_is_that_of_scipy_in_the_logarithm() -> None:
    from scipy import optimize

    rng = np.random.default_rng(0)
    compute = np.geomspace(1e11, 1e14, 7)
    losses = np.array([law(c, 1.2, 0.8, 0.25) for c in compute]) * np.exp(rng.normal(0, 0.003, (20, 7)))
    found = fit(compute, losses)
    for number, one in enumerate(losses):

        def away(x: np.ndarray, one: np.ndarray = one) -> np.ndarray:
            return np.log(x[0] + np.exp(x[1]) * (compute / 1e12) ** -x[2]) - np.log(one)

        best = optimize.least_squares(
            away, [1.0, 0.0, 0.3], bounds=([0, -20, 0.005], [5, 20, 4]), xtol=1e-12, ftol=1e-12
        )
        assert found.at(compute)[number] == pytest.approx(np.exp(away(best.x) + np.log(one)), rel=2e-4)
        assert found.exponent[number] == pytest.approx(best.x[2], rel=0.05)


def test_the_floor_is_never_below_zero_and_a_curve_never_rises() -> None:
    compute = np.geomspace(1e11, 1e14, 5)
    bent = 3 - 0.3 * np.log10(compute / 1e11)  # falls faster than any power law with a floor
    rising = 2 + 0.1 * np.log10(compute / 1e11)
    found = fit(compute, np.stack((bent, rising)))
    assert found.floor[0] == 0
    assert found.floor[1] == pytest.approx(rising.mean(), rel=0.01)
    assert found.scale[1] == 0


# --- of records


def test_a_suites_curves_have_intervals_that_hold_what_was_planted() -> None:
    made = fits_of([*sweep("stride", (1.0, 1.0, 0.3)), *sweep("bpe", (1.2, 0.9, 0.3))], resamples=2000)
    assert (made.key, list(made.rows)) == ("train.bytes", ["stride", "bpe"])
    stride = made.rows["stride"]
    assert [point.row for point in stride.points] == [f"stride@{budget}" for budget in BUDGETS]
    assert stride.points[0].compute == FLOPS * BUDGETS[0]
    # each record has its own noise of 0.02 / sqrt(documents) bits a byte; what documents share shifts all alike
    assert stride.exponent.low < 0.3 < stride.exponent.high
    assert stride.floor.low < 1.0 < stride.floor.high
    assert stride.misfit < 0.01
    band = np.array(stride.band(5))
    assert (band[:, 2] < band[:, 1]).all()
    assert (band[:, 1] < band[:, 3]).all()
    assert band[[0, -1], 0] == pytest.approx([FLOPS * BUDGETS[0], FLOPS * BUDGETS[-1]])


def crossing_of(a: list[Record], b: list[Record]) -> Crossing:
    (found,) = fits_of([*a, *b], resamples=1000).crossings
    return found


def test_a_crossing_is_found_where_it_was_planted() -> None:
    planted = 2e12
    steep, flat = (1.0, 1.2, 0.5), (1.0, 1.2 * (planted / 1e12) ** -0.3, 0.2)
    found = crossing_of(sweep("steep", steep), sweep("flat", flat))
    assert found.status == "inside"
    assert found.lower_first == "flat"
    assert found.compute is not None
    assert found.compute.low < planted < found.compute.high
    assert found.compute.value == pytest.approx(planted, rel=0.1)
    assert found.compute.high / found.compute.low < 1.5
    assert found.share > 0.99
    back = crossing_of(sweep("flat", flat), sweep("steep", steep))
    assert back.compute is not None
    assert back.compute.value == pytest.approx(found.compute.value)


def test_no_crossing_is_claimed_where_nothing_was_measured() -> None:
    steep = (1.0, 1.2, 0.5)
    far = (1.0, 1.2 * (3e13 / 1e12) ** -0.3, 0.2)  # at 3e13, and the largest budget is 1e13
    found = crossing_of(sweep("steep", steep), sweep("far", far))
    assert (found.status, found.compute) == ("extrapolated", None)
    assert found.share < 0.05
    apart = crossing_of(sweep("a", (1.0, 1.0, 0.3)), sweep("b", (1.3, 1.0, 0.3)))
    assert (apart.status, apart.compute, apart.lower_first) == ("none", None, "a")


def test_an_end_that_lies_beyond_the_budgets_is_no_number() -> None:
    # they cross just inside of the largest budget, so that in many resamples they do not yet
    at = FLOPS * BUDGETS[-1] * 0.97
    steep, near = (1.0, 1.2, 0.35), (1.0, 1.2 * (at / 1e12) ** -0.05, 0.3)
    found = crossing_of(sweep("steep", steep), sweep("near", near))
    if found.compute is None:
        assert found.status == "extrapolated"
    else:
        assert isinf(found.compute.high)
    assert found.share < 0.95


def test_more_seeds_and_another_order_of_records_are_the_same_rows() -> None:
    records = [*sweep("a", (1.0, 1.0, 0.3), seeds=(0, 1, 2)), *sweep("b", (1.1, 1.0, 0.3), seeds=(0, 1, 2))]
    there, back = fits_of(records, resamples=500), fits_of(records[::-1], resamples=500)
    assert there.rows["a"].exponent.value == back.rows["a"].exponent.value
    assert len(there.rows["a"].points) == 5


def test_rows_can_be_chosen() -> None:
    records = [*sweep("a", (1.0, 1.0, 0.3)), *sweep("b", (1.1, 1.0, 0.3)), *sweep("few", (1.0, 1, 0.3), budgets=(1, 2))]
    assert list(fits_of(records, ["b", "a"], resamples=200).rows) == ["b", "a"]
    with pytest.raises(BenchError, match="row 'few' has 2 budgets with a number"):
        fits_of(records)
    with pytest.raises(BenchError, match="unknown row 'c'; rows of the sweep are: a, b, few"):
        fits_of(records, ["c"])


def test_what_is_no_sweep_over_budgets() -> None:
    with pytest.raises(BenchError, match="none of these records is of a sweep"):
        fits_of([make_record("stride")])
    sizes = make_record("stride@3", changes={"config.sweep": {"row": "stride", "key": "bytes_per_patch", "value": 3}})
    with pytest.raises(BenchError, match="over bytes_per_patch, which is no budget"):
        fits_of([sizes])


def test_records_that_cannot_be_compared_are_refused() -> None:
    changes: dict[str, Any] = {"config.train.window": 512}
    records = [*sweep("a", (1.0, 1.0, 0.3)), *sweep("b", (1.0, 1.0, 0.3), **changes)]
    with pytest.raises(BenchError, match=r"config\.train\.window"):
        fits_of(records)


# --- sizes


def sizes_and_budgets(parameters: Sequence[int]) -> list[Record]:
    """L = 1 + 400 / N^0.5 + 60 / D^0.35 with 6 N FLOPs a byte, which is the plainest of models."""
    out = []
    for n in parameters:
        for flops in np.geomspace(1e11, 3e12, 6):
            read = flops / (6 * n)
            sweep = {"row": "a", "key": "train.bytes", "value": round(read), "others": {"model.latent_width": n}}
            changes = {"config.sweep": sweep, "flops.train": flops, "cost.train_bytes": round(read)}
            loss = 1 + 400 / n**0.5 + 60 / read**0.35
            out.append(make_record(f"a@{read:.0f}@{n}", bpb=loss, changes={**changes, "parameters.non_embedding": n}))
    return out


def optima(parameters: Sequence[int]) -> list[Optimum]:
    records = sizes_and_budgets(parameters)
    return optima_of(records, fits_of(records, resamples=300))


def test_the_best_size_for_a_budget_is_bracketed() -> None:
    found = optima([25_000 * 2**k for k in range(9)])
    assert len(found) == 3
    for one in found:
        n = np.geomspace(1e4, 3e6, 20_000)
        best = n[(400 / n**0.5 + 60 / (one.compute / (6 * n)) ** 0.35).argmin()]
        assert one.side is None
        assert one.parameters == pytest.approx(best, rel=0.35)
        assert one.ratio is not None
        assert one.ratio.low <= one.ratio.value <= one.ratio.high
        assert one.ratio.value == pytest.approx(one.train_bytes / one.parameters)
        assert one.train_bytes * 6 * one.parameters == pytest.approx(one.compute, rel=0.02)
    assert found[0].parameters < found[-1].parameters


def test_the_best_size_is_in_the_report() -> None:
    made = tables(Comparison(sizes_and_budgets([50_000 * 4**k for k in range(4)]), resamples=100))["Best size"]
    found = optima([50_000 * 4**k for k in range(4)])
    assert [row.cells[0].value for row in made.rows] == ["a"] * 3
    for row, one in zip(made.rows, found, strict=True):
        assert row.cells[1].value == pytest.approx(one.compute)
        assert row.cells[4].value == (None if one.ratio is None else pytest.approx(one.ratio.value, rel=0.1))
    assert any(row.cells[4].low is not None for row in made.rows)
    edge = best_sizes(optima((1_000_000, 2_000_000, 4_000_000)))
    assert {row.cells[2].text for row in edge.rows} == {"the smallest or beyond"}
    assert {(row.cells[3].value, row.cells[4].value) for row in edge.rows} == {(None, None)}


def test_a_best_size_at_the_edge_is_no_optimum() -> None:
    for one in optima((1_000_000, 2_000_000, 4_000_000)):
        assert (one.side, one.ratio) == ("smallest", None)
    assert optima((50_000, 100_000)) == []


# --- on the command line


def test_the_command_prints_and_gives_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for record in [*sweep("a", (1.0, 1.2, 0.5)), *sweep("b", (1.0, 1.2 * 2**-0.3, 0.2))]:
        write(tmp_path, {**record, "suite": "mine"})
    assert main(["fit", "mine", "--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for words in ("E + A * FLOPs^-a", "where rows cross", "a and b", "bootstrap over documents"):
        assert words in text
    assert main(["fit", "mine", "--results", str(tmp_path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert set(made["rows"]) == {"a", "b"}
    assert made["crossings"][0]["status"] == "inside"
    assert made["crossings"][0]["flops"]["value"] == pytest.approx(2e12, rel=0.1)
    assert len(made["rows"]["a"]["band"]) == 40
    assert main(["fit", "mine", "--results", str(tmp_path), "--rows", "c"]) == 2


def test_json_has_null_where_an_end_is_beyond() -> None:
    made = Fits("train.bytes", {}, (Crossing(("a", "b"), "inside", None, "a", 0.5, (1.0, 2.0)),)).as_json()
    assert made["crossings"][0]["flops"] is None
    assert inf not in made["crossings"][0].values()
