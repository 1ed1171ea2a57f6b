"""`patchbench segment`: what is shown is the text and nothing else, whatever bytes it has; the numbers are right."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import patchers
from bench.cli.main import main
from bench.data.cut_statistics import cut_statistics
from bench.data.fitted_patchers import asked
from bench.reporting.cut_viewer import BARS, SHOWN, Cell, as_json, cells, page, rows, show, view
from patchers import Patcher, Starts, register

ROOT = Path(__file__).resolve().parents[3]
Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Called:
    """Run `patchbench segment` in an empty folder; exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(["segment", *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def flags(text: str) -> Starts:
    """`x..x` as starts."""
    return np.array([letter == "x" for letter in text], dtype=bool)


# --- numbers


def test_statistics_by_hand() -> None:
    docs = [b"ab cd", b"", b"e f", b"\tg"]
    cuts = [flags("x..x."), flags(""), flags("xx."), flags("x.")]
    found = cut_statistics(docs, cuts)  # lengths 3 2, 1 2, 2; boundaries before c (after a space), before a space
    assert (found.bytes, found.patches) == (10, 5)
    assert found.mean == 2.0
    assert found.median == 2.0
    assert found.p95 == 3
    assert found.variation == pytest.approx((2 / 5) ** 0.5 / 2)
    assert found.on_spaces == 1.0
    assert cut_statistics([b"abcd ef"], [flags("xx.x..x")]).on_spaces == pytest.approx(0)
    assert cut_statistics([b"abc d"], [flags("x.xx.")]).on_spaces == pytest.approx(1 / 2)
    assert cut_statistics([b"abc d"], [flags("x....")]).on_spaces is None
    assert cut_statistics([b"1" * 40], [flags("x" * 38 + "x.")]).p95 == 1
    assert cut_statistics([], []).mean is None
    assert cut_statistics([b""], [flags("")]).patches == 0


# --- what is shown

TEXTS = [
    b" \n\t\x00\x1b[31m\x7f",
    "é日本😀e\u0301\u202e\u00a0\u200b\x9b".encode(),
    b"\xff\xe2\x82 \xf0\x9f",
    "\u0301start".encode(),
]
anything = st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode(errors="surrogatepass"))


def some_starts(text: bytes, chosen: list[bool]) -> Starts:
    starts = np.resize(np.array([*chosen, False]), len(text))
    starts[:1] = True
    return starts


@given(text=anything | st.sampled_from(TEXTS), chosen=st.lists(st.booleans(), max_size=40), width=st.integers(8, 40))
def test_cells_are_the_text_and_safe_to_print(text: bytes, chosen: list[bool], width: int) -> None:
    starts = some_starts(text, chosen)
    made = cells(text, starts)
    assert [cell.begin for cell in made] == [0, *(cell.end for cell in made[:-1])][: len(made)]
    assert (made[-1].end if made else 0) == len(text)
    assert [cell.begin for cell in made if cell.starts] == np.flatnonzero(starts).tolist()
    assert all(cell.patch == np.count_nonzero(starts[: cell.begin + 1]) - 1 for cell in made)
    for cell in made:
        assert cell.shown.isprintable()
        assert cell.width > 0
        if not cell.raw:
            assert cell.shown.removeprefix("◌").encode() == text[cell.begin : cell.end].removeprefix("◌".encode())
    for gap in (0, 1):
        lines = list(rows(made, width, gap))
        assert [cell for line in lines for cell in line] == made
        assert all(columns(line, gap) <= width for line in lines)
        assert all(not cell.newline for line in lines for cell in line[:-1])


def columns(line: list[Cell], gap: int) -> int:
    return sum(cell.width + gap * cell.starts for cell in line)


def test_what_cannot_be_printed_is_shown_as_pictures_and_bytes() -> None:
    def shown(text: bytes, starts: str) -> str:
        return "|".join(cell.shown for cell in cells(text, flags(starts)))

    assert shown(b"a\n\x1b\x7f", "x...") == "a|␊|␛|␡"
    assert shown("é".encode(), "x.") == "é"
    assert shown("é".encode(), "xx") == "‹c3›|‹a9›"
    assert shown(b"\xff ", "x.") == "‹ff›| "
    assert shown("\u202e".encode(), "x..") == "‹e2›|‹80›|‹ae›"
    assert shown("e\u0301a".encode(), "x...") == "e\u0301|a"
    assert shown("e\u0301a".encode(), "xx..") == "e|◌\u0301|a"


def test_a_patch_that_fits_is_not_broken() -> None:
    made = cells(b"aaaa bbbb cccccccccccccc", flags("x....x....x............."))
    assert ["".join(cell.shown for cell in line) for line in rows(made, 8, 0)] == [
        "aaaa ",
        "bbbb ccc",
        "cccccccc",
        "ccc",
    ]


def printed(text: bytes, *names: str, **terminal: object) -> str:
    file = io.StringIO()
    views = [view(name, asked(name).patcher, text) for name in names]
    show(views, "of a test", Console(file=file, highlight=False, **terminal))  # type: ignore[arg-type]
    return file.getvalue()


def test_without_a_terminal_patches_have_bars_between_them() -> None:
    out = printed(b"The cat\nsat", "whitespace", "stride:stride=3")
    assert out.split("\n")[:8] == [
        "whitespace  causal; SpaceByte (Slagle 2024)",
        "│The │cat␊",
        "│sat",
        "",
        "stride:stride=3  stride 3, causal; MegaByte (Yu et al. 2023)",
        "│The│ ca│t␊",
        "s│at",
        "",
    ]
    assert "11 bytes of a test" in out
    assert re.search(r"whitespace +3 +3.67 +4 +4 +0.13 +100 %", out)
    assert "\x1b" not in out


def test_on_a_terminal_patches_have_colours_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = printed(b"The cat sat", "whitespace", force_terminal=True, color_system="truecolor", width=40)
    painted = re.findall(r"\x1b\[[\d;]*48;2;(\d+;\d+;\d+)m([^\x1b]*)", out)
    assert [text for _, text in painted] == ["The ", "cat ", "sat"]
    assert painted[0][0] == painted[2][0] != painted[1][0]
    assert "│" not in out
    assert "│The │cat │sat" in printed(b"The cat sat", "whitespace", force_terminal=True, color_system=None, width=40)
    assert "│The │cat │sat" in printed(b"The cat sat", "whitespace", force_terminal=True, no_color=True, width=40)


@register("segment-test-scored")
class Scored(Patcher):
    """Scores are the values of the bytes less 'a', and a byte of a score above one starts a patch."""

    def segment(self, data: bytes) -> Starts:
        starts = self.scores(data) > 1
        starts[:1] = True
        return starts

    def scores(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, np.uint8) - float(ord("a"))


def test_scores_are_bars_below_their_bytes() -> None:
    text = "acaieé".encode()
    lines = printed(text, "segment-test-scored").split("\n")
    assert lines[1] == "│a│ca│i│e│‹c3›│‹a9›"
    top = text[-2] - ord("a")
    wanted = [BARS[int(np.ceil(8 * (byte - ord("a")) / top))] for byte in text]
    assert lines[2] == " {} {}{} {} {} {} {}".format(*wanted[:5], wanted[5] * 4, wanted[6] * 4)
    assert lines[3] == f"▁▂▃▄▅▆▇█ score, byte by byte, 0 to {top}"
    assert wanted[0] == " "
    assert wanted[4] != wanted[5] == "█"


def test_bars_say_what_they_measure() -> None:
    text = b"The cat sat on the mat. " * 40
    for name, wanted in (
        ("entropy", "entropy in nats, byte by byte, 0 to "),
        ("bpe_predicted", "probability of a start"),
    ):
        one = view(name, patchers.create(name).fit([text]), text[:100])
        assert one.scale.startswith(wanted)
        assert float(one.scale.split()[-1]) == pytest.approx(one.top, rel=0.01)


def test_json_is_exact(call: Called) -> None:
    text = b"a b\xff" + "é".encode()
    code, out, err = call("--json", "-p", "stride:stride=2", "-p", "segment-test-scored", "-", stdin=text)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["source"], found["bytes"]) == ("from standard input", 6)
    stride, scored = found["views"]
    assert stride["starts"] == [0, 2, 4]
    assert stride["patches"] == ["a ", "b\\xff", "é"]
    assert stride["options"] == {"stride": 2}
    assert stride["scores"] is None
    assert stride["statistics"] == {
        "bytes": 6,
        "patches": 3,
        "mean": 2.0,
        "median": 2.0,
        "p95": 2,
        "variation": 0.0,
        "on_spaces": 0.5,
    }
    assert scored["scores"] == [byte - 97 for byte in text]


def test_a_long_text_is_shown_in_part_and_counted_whole() -> None:
    text = "é ".encode() * SHOWN
    for stride, end in ((3, 9_999), (42, 9_996), (1_000_000, 9_999)):  # whole patches, else whole characters
        out = printed(text, f"stride:stride={stride}")
        assert out.count("é") == end // 3
        assert "‹" not in out
        assert f"… and {len(text) - end:,} bytes more" in out
        patches = -(-len(text) // stride)
        assert f" {patches:,} " in out
        assert len(as_json(view("", asked(f"stride:stride={stride}").patcher, text))["starts"]) == patches
    assert "more" not in printed(text[:SHOWN], "stride")


# --- the page


class Words(HTMLParser):
    """The words of a page, those of each patch, and what it would load."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.patches: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "span":
            self.patches.append("")
        if tag not in ("br", "meta"):
            self.tags.append(tag)
        self.loads += [str(value) for key, value in attributes if key in ("src", "href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.tags.pop() == tag

    def handle_data(self, text: str) -> None:
        if "span" in self.tags:
            self.patches[-1] += text


def test_the_page_is_whole_and_loads_nothing() -> None:
    text = b"<b> & c\n\xff\x1b"
    source = page(
        [view(name, asked(name).patcher, text) for name in ("stride:stride=4", "segment-test-scored")], "of <i>"
    )
    read = Words(source)
    assert read.patches[:3] == ["<b> ", "& c␊", "‹ff›␛"]
    assert "".join(read.patches[3:]) == "<b> & c␊‹ff›␛"
    assert not read.tags
    assert not read.loads
    assert "of &lt;i&gt;" in source
    assert "prefers-color-scheme: dark" in source
    assert not re.search(r"https?:|url\(|@import|<script|\x1b", source)
    assert source.count("<i style=") == len(text)


# --- the command


def test_a_text_a_file_and_standard_input(call: Called) -> None:
    Path("words.txt").write_bytes(b"from a file")
    assert "│from │a │file" in call("-p", "whitespace", "words.txt")[1]
    assert "11 bytes of words.txt" in call("-p", "whitespace", "words.txt")[1]
    assert "│from │stdin" in call("-p", "whitespace", "-", stdin=b"from stdin")[1]
    code, out, err = call("-p", "whitespace", "-p", "bytes", "words.tx")
    assert (code, err) == (0, "")
    assert "│words.│tx" in out
    assert "│w│o│r│d│s│.│t│x" in out
    assert "8 bytes from the command line" in out
    assert "0 bytes" in call("-p", "whitespace", "")[1]
    assert "│x│x" in call("-p", "bytes", "x" * 5000)[1], "longer than a file's name may be"
    assert not Path("results").exists(), "a rule has nothing to keep"


def test_a_page_beside_the_text(call: Called) -> None:
    code, out, err = call("-p", "whitespace", "--html", "cut.html", "a b")
    assert (code, err) == (0, "wrote cut.html\n")
    assert "│a │b" in out
    assert Words(Path("cut.html").read_text()).patches == ["a ", "b"]


def test_knobs_go_to_the_wanted_size_unless_given(call: Called) -> None:
    args = ("--json", "--bytes-per-patch", "6", "-p", "stride", "-p", "stride:stride=3", "-p", "whitespace", "a text")
    strides = [shown["options"].get("stride") for shown in json.loads(call(*args)[1])["views"]]
    assert strides == [6.0, 3, None]


def test_what_learns_is_fitted_once_for_a_cache(call: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("-p", "entropy:order=1", "--results", "kept", "The cat sat on the mat")
    first = call(*args)
    assert first[0] == 0, first[2]
    assert len([path for path in Path("kept/cache/patchers").iterdir() if path.is_dir()]) == 1

    def learn(*args: object) -> None:
        raise AssertionError("it was fitted again")

    monkeypatch.setattr(patchers.get("entropy"), "fit", learn)
    assert call(*args) == first


def test_a_folder_that_has_a_patcher(call: Called) -> None:
    patchers.create("stride", stride=2).save("kept/patcher")
    for folder in ("kept", "kept/patcher"):
        assert "│ab│cd│e" in call("-p", folder, "abcde")[1]


PLUGIN = """\
import numpy as np
from patchers import Patcher, register

@register("{name}")
class Mine(Patcher):
    def segment(self, data):
        {body}
"""

MISTAKES = [
    (("-p", "whitespac", "a"), "unknown patcher 'whitespac', did you mean 'whitespace'?"),
    (("-p", "stride:strde=2", "a"), "patcher 'stride' has no option 'strde', did you mean 'stride'?"),
    (("-p", "stride:stride=two", "a"), "option 'stride' of patcher 'stride' must be a number, got 'two'"),
    (("-p", "stride:2", "a"), "option '2' is not key=value"),
    (("-p", "stride:stride=2,stride=3", "a"), "option 'stride' is given twice"),
    (("-p", "hnet", "a"), "is trained inside a model: run a suite that has it"),
    (("-p", "results/none", "a"), "no saved patcher in results/none"),
    (("a",), "Missing option '-p'"),
    (("-p", "bytes"), "Missing argument"),
    (("-p", "bytes", "--plugin", "none.py", "a"), "no plug-in file at none.py"),
    (("-p", "stride", "--bytes-per-patch", "0.5", "a"), "bytes_per_patch must be at least 1"),
    (("-p", "bytes", "--html", "none/cut.html", "a"), "cannot write none/cut.html"),
    (("-p", "entropy", "--results", "taken", "a"), "cannot write to the results folder taken"),
]


@pytest.mark.parametrize(("args", "expected"), MISTAKES, ids=[expected for _, expected in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(call: Called, args: tuple[str, ...], expected: str) -> None:
    Path("taken").write_text("")
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.startswith("patchbench: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return [True]", "returned list, wanted a numpy array of bool of shape (3,)"),
        ("return np.ones(2, dtype=bool)", "returned bool (2,), wanted"),
        ("return np.ones(3)", "returned float64 (3,), wanted"),
        ("return np.zeros(3, dtype=bool)", "starts no patch at byte 0"),
    ],
)
def test_starts_that_are_none_are_told(call: Called, body: str, expected: str) -> None:
    name = f"segment-test-{abs(hash(body))}"
    Path("mine.py").write_text(PLUGIN.format(name=name, body=body))
    code, out, err = call("-p", name, "--plugin", "mine.py", "abc")
    assert (code, out) == (2, "")
    assert expected in err
    assert f"patchbench check {name}" in err


def test_what_a_plugin_raises_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.format(name="mine", body="raise RuntimeError('the plug-in itself')"))
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    code += "from bench.cli.main import main; sys.exit(main(sys.argv[1:]))"
    args = ["segment", "-p", "mine", "--plugin", "mine.py", "abc"]
    done = subprocess.run([sys.executable, "-c", code, *args], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith("mine.py, line 7, in segment: RuntimeError: the plug-in itself")
    assert done.stderr.count("\n") == 1
