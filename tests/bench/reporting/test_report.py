"""The report is one page that has all, asks for nothing, and is the same each time; a browser tries it elsewhere."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from record_builder import make_failed, make_record
from report_records import ROWS, TEXTS, made_page, selection

from bench import records
from bench.cli import main as cli
from bench.intrinsics.aligned import AlignedTexts
from bench.intrinsics.measure import Contender, measure
from bench.records.selection import Selection
from bench.records.statistics import Estimate
from bench.reporting import intrinsics
from bench.reporting.plots import style as plot_style
from bench.reporting.plots.catalog import drawn
from bench.reporting.report.page import VARIABLES, page, themed
from bench.reporting.report.summary import headline
from bench.reporting.report.tables import tables
from bench.reporting.report.viewing import texts
from bench.reporting.table import Comparison
from patchers import BenchError, create

VOID = {"meta", "link", "br", "input", "path", "use", "rect"}


class Page(HTMLParser):
    """What a browser would find, and whether elements are closed as they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts: dict[str, str] = {}
        self.tags: list[str] = []
        self._script: str | None = None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "action")]
        if tag == "script":
            self._script = given.get("id") or "code"
            self.scripts[self._script] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._script = None if tag == "script" else self._script

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] += data


@pytest.fixture(scope="module")
def made() -> str:
    return made_page([selection()])


@pytest.fixture(scope="module")
def parsed(made: str) -> Page:
    return Page(made)


def test_the_page_is_whole_and_every_id_is_there_once(parsed: Page) -> None:
    assert len(parsed.ids) == len(set(parsed.ids))
    targets = [link[1:] for link in parsed.links if link.startswith("#") and link != "#"]
    assert set(targets) <= set(parsed.ids)
    assert parsed.tags.count("h1") == 1


def test_it_asks_for_nothing(made: str, parsed: Page) -> None:
    assert all(link.startswith("#") or link == "data:," for link in parsed.links)
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|EventSource|WebSocket|importScripts", made)
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", made))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names, not places"
    assert "default-src 'none'" in made


def test_the_same_records_give_the_same_page(made: str) -> None:
    assert made_page([selection()]) == made


def test_every_record_is_in_it_in_full_and_can_be_put_back_as_its_file(parsed: Page, tmp_path: Path) -> None:
    runs = {run["id"]: run for run in json.loads(parsed.scripts["page-data"])["runs"]}
    chosen = selection()
    assert len(runs) == len(chosen.records)
    for record in chosen.records:
        packed = parsed.scripts[f"record-standard/{record['run_id']}"]
        text = gzip.decompress(base64.b64decode(packed))
        path = records.write(tmp_path, record)
        path.write_bytes(text)
        assert records.read(path) == record
        assert runs[record["run_id"]]["ok"] == (record["status"] == "ok")


def test_texts_of_users_end_no_script_and_make_no_element(made: str, parsed: Page) -> None:
    assert "A &lt;suite&gt; &amp; more." in made
    seen = json.loads(parsed.scripts["page-data"])["suites"][0]["texts"]
    assert seen[0]["text"] == TEXTS[0][1].decode()
    assert "<b>there" not in made
    assert "suite" not in parsed.tags


def test_the_viewer_has_every_row_that_has_examples() -> None:
    chosen = selection()
    seen = texts(chosen.records, chosen.rows)
    assert [text["title"].startswith("“") for text in seen] == [True, True]
    assert [view["row"] for view in seen[0]["seen"]] == list(ROWS)
    assert "flag_centibits" in seen[0]["seen"][2]
    assert seen[0]["seen"][-1]["starts"] is None
    first = next(record for record in chosen.records if record["row"] == "whitespace")
    assert seen[1]["seen"][1]["centibits"] == first["examples"][1]["centibits"], "of seed 0"


def test_records_without_examples_make_a_page_too() -> None:
    record = make_record("a", documents=5)
    other = Page(made_page([Selection("quick", [record | {"schema": 1}])]))
    assert json.loads(other.scripts["page-data"])["suites"][0]["texts"] == []


def test_only_failures_make_a_page_too() -> None:
    text = made_page([Selection("quick", [make_failed("a") | {"schema": 1}])])
    assert "No row has a number." in text
    assert "Divergence at step 17" in text


def test_thirty_runs_take_less_than_five_megabytes() -> None:
    """Of the size that runs of `standard` have: 505 documents, bits per byte and per character."""
    chosen = selection(seeds=6, documents=505)
    assert len(chosen.records) >= 30
    assert len(made_page([chosen]).encode()) < 5_000_000


def test_the_cuts_of_a_suite_stand_beside_its_records(tmp_path: Path) -> None:
    """Tables of `patchbench intrinsics`, as they were kept, and their heat map."""
    contenders = [Contender(name, create(name)) for name in ("stride", "whitespace")]
    languages = AlignedTexts({"eng": (b"one two",), "deu": (b"eins zwei",)}, "eng")
    kept = tmp_path / "intrinsics.json"
    assert intrinsics.read(kept) == []
    tables = intrinsics.tables(measure(contenders, [b"some text of two words"], "texts", aligned=languages))
    kept.write_text(intrinsics.kept(tables), encoding="utf-8")
    assert intrinsics.read(kept) == tables
    chosen = selection("standard")
    made = page([chosen], resamples=100, cuts={"standard": intrinsics.read(kept), "other": tables})
    for said in (*intrinsics.TITLES, "standard-agreement", "Gini", "Petrov"):
        assert said in made
        assert said not in made_page([chosen])
    Page(made)
    kept.write_text("[{]")
    with pytest.raises(BenchError, match=r"cannot read .*intrinsics.json: .*; `patchbench intrinsics SUITE` makes it"):
        intrinsics.read(kept)


def test_several_suites_are_sections_of_one_page() -> None:
    whole = Page(made_page([selection("standard", seeds=1), selection("leaks", seeds=1)]))
    assert {"standard", "leaks"} <= set(whole.ids)
    assert len(whole.ids) == len(set(whole.ids)), "also where the two have the same runs"


def test_pictures_follow_the_page(made: str) -> None:
    for colour, name in VARIABLES.items():
        assert (
            themed(f'<svg width="1pt" height="2pt" viewBox="0"><path style="fill: {colour}"/></svg>', "a").count(name)
            == 1
        )
    drawings = re.findall(r"<svg .*?</svg>", made, re.DOTALL)
    assert len(drawings) >= 5
    for drawing in drawings:
        assert not re.search(r"#[0-9a-fA-F]{6}\b", drawing), "a colour that does not follow light and dark"
        assert not re.match(r"<svg [^>]*(?<!-)width=", drawing)
        assert "DejaVu" not in drawing
    style = (resources.files("bench.reporting.report") / "style.css").read_text()
    assert all(f"--{name}:" in style for name in VARIABLES.values())


def test_what_is_left_out_is_said(made: str) -> None:
    assert "2 records of other configurations are left out" in made


# --- the sentence above


def told(**bpb: float) -> str:
    found = [make_record(row, seed, bpb=value, documents=60) for row, value in bpb.items() for seed in range(3)]
    return re.sub(r"<[^>]+>", "", headline(Comparison(found, resamples=500)))


def test_the_headline_says_who_wins_by_how_much() -> None:
    said = told(a=2.3, b=2.2)
    assert re.fullmatch(
        r"b has the fewest bits per byte, 2\.\d{3} \[2\.\d{3}, 2\.\d{3}\]\. "
        r"a comes next, \+0\.\d{3} \[\+0\.\d{3}, \+0\.\d{3}\] behind the best\.",
        said,
    ), said


def test_the_headline_names_those_that_tie() -> None:
    said = told(a=2.3, b=2.301, c=2.5)
    assert "Not shown to be worse:" in said
    assert "c comes after these" in said


def test_the_headline_says_what_a_tie_costs() -> None:
    for price, words in ((1.05, "b."), (3.4, "b (at 3.4 times the FLOPs a byte)."), (0.25, "b (at 0.25 times the")):
        changes = {"b": {"flops.per_byte.total": 1.2e6 * price}}
        found = [
            make_record(row, seed, bpb=bpb, documents=60, changes=changes.get(row))
            for row, bpb in (("a", 2.3), ("b", 2.306))
            for seed in range(3)
        ]
        said = re.sub(r"<[^>]+>", "", headline(Comparison(found, resamples=200)))
        assert f"Not shown to be worse: {words}" in said


def test_the_headline_says_what_one_seed_does_not_say_and_ranks_no_leak() -> None:
    found = [make_record("a", documents=60), make_record("b", bpb=1.5, documents=60, changes={"config.leaky": True})]
    said = headline(Comparison(found, resamples=500))
    assert "<strong>a</strong>" in said
    assert "<strong>b</strong>" not in said
    assert "only row that is ranked" in said
    one = [make_record(row, documents=60, bpb=bpb) for row, bpb in (("a", 2.0), ("b", 2.2))]
    assert "One seed:" in headline(Comparison(one, resamples=500))


def test_the_headline_of_a_sweep_is_about_its_largest_budget_and_says_where_rows_cross() -> None:
    found = []
    for row, floor, height in (("a", 1.5, 100.0), ("b", 1.2, 250.0)):
        for value in (40_000, 160_000, 640_000, 2_560_000):
            changes = {"config.sweep": {"row": row, "key": "train.bytes", "value": value}, "flops.train": value * 1e6}
            bpb = floor + height / value**0.5
            found.append(make_record(f"{row}@{value}", bpb=bpb, documents=60, changes=changes))
    compared = Comparison(found, resamples=200)
    said = re.sub(r"<[^>]+>", "", headline(compared))
    assert said.startswith("At the largest train.bytes, 2,560,000: b@2560000 has the fewest bits per byte")
    assert re.search(r"a and b cross at \d+(\.\d+)?G FLOPs \[.*\]: a is lower before, b after\.", said), said
    made = tables(compared)["Scaling"]
    assert [row.label for row in made.rows] == ["a", "b"]
    assert made.cell("a", "E").value == pytest.approx(1.5, abs=0.1)
    assert drawn(compared, "train_speed") is None


# --- the command


def test_report_and_plot_are_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for record in selection("mine", seeds=1, documents=10).records:
        records.write(tmp_path / "results", record)
    common = ["--results", str(tmp_path / "results")]
    assert cli.main(["report", "mine", *common, "-o", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert cli.main(["plot", "mine", *common, "--kind", "patch_size", "-o", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["plot", "mine", *common, "-o", str(tmp_path / "all")]) == 0
    assert {path.name for path in (tmp_path / "all").iterdir()} >= {"differences.svg", "train_speed.svg"}
    assert cli.main(["plot", "mine", *common]) == 0
    assert "differences" in capsys.readouterr().out
    assert cli.main(["report", *common[:1], str(tmp_path), "-o", str(tmp_path / "r.html")]) == 2
    assert "no records in" in capsys.readouterr().err


def test_intervals_of_nothing_are_not_printed() -> None:
    from bench.reporting.report.summary import _with_interval

    assert _with_interval(Estimate(2.0, float("nan"), float("nan"))) == "2.000"
    assert plot_style.PAPER in VARIABLES
