"""`patchbench check`: exit code 0 for what is sound, 1 with the counter-example for what is not, 2 for a bad call."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest
from broken_patchers import CAUGHT
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from bench.cli.main import main
from patchers import Kind, Patcher, Starts, register, state

Called = Callable[..., tuple[int, str, str]]
RULES = ["input", "shape", "determinism", "batch", "threads", "causality", "stream"]
RULES += ["saving", "calibration", "long runs"]
AT_SCALE = ["costs", "large batches", "long documents", "many calls", "fresh process"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Called:
    """Run `patchbench check` in an empty folder; exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        code = main(["check", *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_sound_patcher(call: Called) -> None:
    code, out, err = call("whitespace")
    assert (code, err) == (0, "")
    head, *lines, last = out.splitlines()
    assert head == "whitespace  rule, causal; SpaceByte (Slagle 2024)"
    assert [(line[:6].strip(), line[6:20].strip()) for line in lines] == [("ok", rule) for rule in RULES + AT_SCALE]
    assert last.startswith("sound: all 15 rules hold. On wiki-en: 6.")
    assert last.endswith(" MB/s")
    assert not list(Path().iterdir())


def test_what_a_tokenizer_loses_is_said_and_is_no_fault_of_the_cut(call: Called) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save("words.json")
    code, out, err = call("tokenizer", "--set", "file=words.json", "--quick")
    assert (code, err) == (0, "")
    said, last = out.splitlines()[-2:]
    assert said.startswith("     not lossless   on wiki-en its tokens do not give back ")
    assert "unknown token 9" in said
    assert "lower case 0." in said
    assert "('THE ' becomes 'the')" in said or "('The ' becomes 'the')" in said
    assert last.startswith("sound: all 10 rules hold.")
    found = json.loads(call("tokenizer:file=words.json", "--quick", "--json")[1])
    assert 0.9 < found["losses"]["changed_share"] < 1
    assert found["losses"]["kinds"]["lower case"]["example"].endswith("becomes 'the'")
    assert json.loads(call("whitespace", "--quick", "--json")[1])["losses"] is None
    assert call("tokenizer", "--set", "file=none.json")[:1] == (2,)


def test_the_short_form(call: Called) -> None:
    code, out, _ = call("whitespace", "--quick")
    assert code == 0
    assert out.splitlines()[-1].startswith("sound: all 10 rules hold.")


def test_the_findings_as_json(call: Called) -> None:
    code, out, err = call("stride", "--set", "stride=2.5", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["sound"] is True
    assert found["options"] == {"stride": 2.5}
    assert [finding["rule"] for finding in found["findings"]] == RULES + AT_SCALE
    assert all(finding["passed"] and finding["detail"] and finding["trace"] is None for finding in found["findings"])
    assert found["statistics"]["mean"] == pytest.approx(2.5, rel=0.01)
    assert 1e5 < found["bytes_per_second"] < 1e11


# Another process looks at the patchers of a plug-in alone; the audit's own tests have these.
IN_MORE_PROCESSES = {"broken_tired", "broken_learns_by_itself", "broken_memory"}


@pytest.mark.parametrize("name", sorted(CAUGHT.keys() - IN_MORE_PROCESSES))
def test_a_broken_patcher_is_caught_in_the_right_words(call: Called, name: str) -> None:
    rule, words = CAUGHT[name]
    code, out, err = call(name)
    assert (code, err) == (1, "")
    failed = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert any(line.split(maxsplit=1)[1].startswith(rule) and words in line for line in failed)
    assert out.splitlines()[-1].startswith("not sound: it breaks ")
    assert rule in out.splitlines()[-1]
    assert "MB/s" not in out
    found = json.loads(call(name, "--json")[1])
    assert found["sound"] is False
    assert found["statistics"] is found["bytes_per_second"] is None
    example = next(finding["example"] for finding in found["findings"] if finding["rule"] == rule)
    if rule in ("costs", "large batches", "long documents"):
        return  # costs have no cuts to show, and long texts are shown at the place alone
    assert all(bytes.fromhex(text["hex"]).decode(errors="replace") == text["text"] for text in example["texts"])
    if len(example["cuts"]) == 2:
        first, second = (set(cut) for cut in example["cuts"])
        assert example["position"] in first ^ second


def test_the_counter_example_is_shown(call: Called) -> None:
    """Where two texts part, and how each is cut."""
    line = next(line for line in call("broken_starts_at_space")[1].splitlines() if line.startswith("FAIL  causality"))
    place = int(line.split("starts[")[1].split("]")[0])
    assert f"two texts that share their first {place} bytes" in line
    cuts = line.split("; ")[1].split(" and ")
    assert all("|" in cut for cut in cuts[:2])


PLUGIN = """\
from patchers import Patcher, register

@register("check-test-raises")
class Mine(Patcher):
    def segment(self, data):
        return data[len(data)]

@register("check-test-raises-late")
class Late(Patcher):
    def segment(self, data):
        import numpy as np
        return np.arange(len(data)) % 4 == 0
    def stream(self):
        raise RuntimeError("no stream today")

@register("check-test-fit")
class Fit(Mine):
    def fit(self, docs, seed=0):
        raise RuntimeError("nothing to learn")
"""


def test_what_a_plugin_raises_is_shown_with_its_own_lines(call: Called) -> None:
    Path("mine.py").write_text(PLUGIN)
    code, out, err = call("check-test-raises", "--plugin", "mine.py")
    assert (code, err) == (1, "")
    for rule in ("input", "shape"):
        assert f"FAIL  {rule:14} it raised IndexError: index out of range" in out
    assert 'mine.py", line 6, in segment\n    return data[len(data)]' in out
    assert out.count("IndexError: index out of range\n\n") == 1, "once, whichever rules it breaks"
    assert "Traceback" not in out
    assert "audit.py" not in out, "no line of ours"
    code, out, _ = call("check-test-raises-late", "--plugin", "mine.py")
    assert code == 1
    assert [line[6:20].strip() for line in out.splitlines() if line.startswith("FAIL")] == ["stream"]
    assert 'raise RuntimeError("no stream today")' in out
    found = json.loads(call("check-test-raises-late", "--plugin", "mine.py", "--json")[1])
    assert [finding["rule"] for finding in found["findings"] if finding["trace"]] == ["stream"]
    code, _, err = call("check-test-fit", "--plugin", "mine.py")
    assert code == 2
    assert "mine.py, line 19, in fit: RuntimeError: nothing to learn" in err


@register("check-test-learns")
class Learns(Patcher):
    """Cuts after the commonest byte of the text that it was fitted on."""

    kind: ClassVar[Kind] = "fitted"
    _byte: int | None = state()

    def fit(self, docs: Sequence[bytes], seed: int = 0) -> Self:
        counts = np.bincount(np.frombuffer(b"".join(docs), np.uint8), minlength=256)
        return dataclasses.replace(self, _byte=int(counts.argmax()))

    def segment(self, data: bytes) -> Starts:
        assert self._byte is not None
        starts = np.ones(len(data), dtype=bool)
        starts[1:] = np.frombuffer(data, np.uint8)[:-1] == self._byte
        return starts


def test_what_learns_is_fitted_first(call: Called) -> None:
    code, out, err = call("check-test-learns")
    assert (code, err) == (0, "")
    assert "100 % of boundaries on spaces" in out, "the commonest byte of English"


def test_a_saved_patcher(call: Called, tmp_path: Path) -> None:
    Learns(_byte=ord("e")).save(tmp_path / "run" / "patcher")
    found = json.loads(call("run", "--json")[1])
    assert found["name"] == "check-test-learns"
    assert found["sound"] is True
    assert found["statistics"]["on_spaces"] < 0.5


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), "Missing argument 'PATCHER'"),
        (("strde",), "unknown patcher 'strde', did you mean 'stride'?"),
        (("stride", "--set", "strde=2"), "patcher 'stride' has no option 'strde', did you mean 'stride'?"),
        (("stride", "--set", "stride"), "option 'stride' is not key=value"),
        (("stride", "--set", "stride=0.1"), "stride must be at least 1, got 0.1"),
        (("stride:stride=2", "--set", "stride=3"), "option 'stride' is given twice"),
        (("hnet",), "is trained inside a model: run a suite that has it"),
        (("results/none",), "no saved patcher in results/none"),
        (("saved", "--set", "stride=2"), "the patcher in saved is as it was saved; leave 'stride=2' out"),
    ],
)
def test_a_bad_call_is_one_line_and_exit_code_2(call: Called, args: tuple[str, ...], expected: str) -> None:
    Learns().save("saved")
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.startswith("patchbench: error: ")
    assert err.count("\n") == 1
