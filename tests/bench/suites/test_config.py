"""Suites: strict YAML, typed, with errors that say where."""

import ast
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_suite import MODEL, tiny_suite
from tokenizer_files import by_hand_tokenizer

from bench.data.config import DataConfig
from bench.data.sources import DatasetConfig
from bench.evaluation.tasks import BitsPerByte
from bench.suites import config
from bench.suites.catalog import purpose, shipped_suites
from bench.suites.config import Suite, TrainConfig, load_suite, suite_from_tree
from bench.suites.launch_config import LaunchConfig, SlurmConfig
from bench.system.yaml import parse
from models.byte_lm import ByteLMConfig
from models.harness import HarnessConfig
from models.token_lm import TokenLMConfig
from patchers.errors import BenchError

ROOT = Path(__file__).resolve().parents[3]

SUITE = """\
data:
  corpus: wiki-en
train:
  lr: 3e-4
  bytes: 1_000_000
bytes_per_patch: 4.5
rows:
  stride: {patcher: stride}
  whitespace:
    patcher: {name: whitespace}
  bpe: {patcher: bpe}
  bpe-leaky: {patcher: bpe, leaky: true}
  tokens: {model: token_lm, patcher: {name: bpe, vocab: 300}, calibrate: false}
  bytes: {model: byte_lm}
"""


BOMB = ", ".join(f"&b{i} [{', '.join([f'*b{i - 1}' if i else 'x'] * 9)}]" for i in range(9))
"""A gigabyte of values in a line of aliases."""


def suite(text: str = SUITE, *overrides: str) -> Suite:
    return suite_from_tree(parse(text, "mine.yaml"), "mine", overrides, ())


def test_a_tokenizer_is_known_by_its_files_content(tmp_path: Path) -> None:
    """Not by its path: the same file elsewhere is the same run, an edited one is another."""
    content = by_hand_tokenizer().read_text()
    made = {}
    for name, text in {"a": content, "b": content, "c": content.replace("<|endoftext|>", "<|end|>")}.items():
        (tmp_path / name).write_text(text)
        row = f"{{patcher: {{name: tokenizer, file: '{tmp_path / name}'}}, model: token_lm}}"
        made[name] = suite(SUITE + f"  mine: {row}\n").run_config("mine")
    assert made["a"] == made["b"] != made["c"]
    assert str(tmp_path) not in json.dumps(made["a"])
    assert made["a"]["patcher"]["options"]["file"].startswith("sha256:")
    with pytest.raises(BenchError, match=r"line 15: rows.mine.patcher.file: .* cannot be read: No such file"):
        suite(SUITE + "  mine: {patcher: {name: tokenizer, file: nowhere.json}}\n")


def edited(old: str, new: str) -> str:
    assert old in SUITE
    return SUITE.replace(old, new)


def message(text: str = SUITE, *overrides: str) -> str:
    with pytest.raises(BenchError) as caught:
        suite(text, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is read


def test_numbers_and_defaults() -> None:
    read = suite()
    assert (read.name, read.seeds, read.tasks, read.match) == ("mine", (0,), (BitsPerByte(),), "placement")
    train = read.row("stride").train
    assert (train.lr, train.bytes) == (3e-4, 1_000_000)
    assert isinstance(train.lr, float)
    assert train.window == TrainConfig().window
    assert read.data == DataConfig(corpus="wiki-en")


def test_rows() -> None:
    read = suite()
    rows = {row.label: row for row in read.rows}
    assert list(rows) == ["stride", "whitespace", "bpe", "bpe-leaky", "tokens", "bytes"]
    assert {label: row.calibrate for label, row in rows.items()} == {
        "stride": True,
        "whitespace": False,  # has no knob
        "bpe": True,
        "bpe-leaky": True,
        "tokens": False,
        "bytes": False,
    }
    paid = {label for label, row in rows.items() if row.price is not None}
    assert paid == {"bpe"}, "boundaries are paid for where they are not causal, not waived, and predicted at all"
    assert rows["bpe"].price == config.DEFAULT_PRICE
    assert rows["bpe-leaky"].leaky
    assert rows["bytes"].patcher is None
    assert [type(rows[label].sizes) for label in ("stride", "tokens", "bytes")] == [
        HarnessConfig,
        TokenLMConfig,
        ByteLMConfig,
    ]


def test_a_row_overrides_its_training_and_its_sizes() -> None:
    text = edited(
        "  bytes: {model: byte_lm}\n",
        "  bytes: {model: byte_lm, train: {lr: 0.5}, options: {width: 96}}\nbyte_lm: {layers: 7}\n",
    )
    row = suite(text).row("bytes")
    assert row.train == TrainConfig(lr=0.5, bytes=1_000_000)
    assert row.sizes == ByteLMConfig(width=96, layers=7)


def test_overrides() -> None:
    read = suite(
        SUITE + "  dot-4.5: {patcher: stride}\n",
        "rows.stride.patcher.stride=6.5",  # the row's patcher is a bare name in the file
        "train.lr=1e-3",
        "seeds=[0, 1]",
        "rows.stride.calibrate=false",
        "rows.more.patcher=random",
        "rows.more.train.lr=0.1",
        "rows.dot-4.5.train.lr=0.2",
        "model.pool=mean",
    )
    assert read.seeds == (0, 1)
    assert read.row("stride").train.lr == 1e-3
    assert read.row("stride").patcher_options() == {"name": "stride", "options": {"stride": 6.5}}
    assert read.row("more").train.lr == 0.1
    assert read.row("dot-4.5").train.lr == 0.2
    assert read.row("stride").sizes == HarnessConfig(pool="mean", boundary_inputs="none")


def test_a_source_on_the_command_line_replaces_the_one_in_the_file() -> None:
    assert suite(SUITE, "data.files=~/a*.txt").data == DataConfig(files=("~/a*.txt",))
    with_files = edited("corpus: wiki-en", "files: [a.jsonl]\n  field: text")
    assert suite(with_files, "data.corpus=wiki-fr").data == DataConfig(corpus="wiki-fr")
    assert suite(with_files, "data.files=[b.jsonl]").data == DataConfig(files=("b.jsonl",), field="text")
    dataset = suite(with_files, "data.dataset.path=org/name", "data.dataset.streaming=true", "data.max_bytes=9")
    assert dataset.data.dataset == DatasetConfig("org/name", streaming=True)
    assert "wanted exactly one of" in message(SUITE, "data.files=a", "data.corpus=wiki-fr")


def test_suites_that_ship_load_by_name() -> None:
    assert {"quick", "standard"} <= set(shipped_suites())
    for name, path in shipped_suites().items():
        read = load_suite(name)
        assert read.name == name
        assert purpose(path), "a suite begins with a comment that says what it is for"
        assert json.loads(json.dumps(read.resolved())) == read.resolved()


WITHOUT_CONTROLS = {
    **dict.fromkeys(("decoder_injection", "entropy_models", "hash_ngrams"), "one option of the harness, at one cut"),
    **dict.fromkeys(("patch_scaling", "latent_steps", "one_byte"), "one cut, whose patches grow or are bytes"),
    **dict.fromkeys(("study_robustness", "study_characters"), "eight megabytes a row; robustness and characters have"),
    "instrument": "controls of each of its sizes, none of them grown: at equal bytes",
    "tune": "settings of one cut",
}


@pytest.mark.parametrize("name", sorted(shipped_suites().keys() - WITHOUT_CONTROLS.keys()))
def test_a_suite_that_compares_cuts_has_both_controls(name: str) -> None:
    uncut = [row for row in load_suite(name).rows if row.patcher is not None and row.patcher.name == "none"]
    assert {row.grow_to is not None for row in uncut} == {False, True}


def test_suites_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "quick"  # a file of that name goes before the suite that ships
    path.write_text(SUITE)
    assert load_suite(str(path)).row("tokens")
    monkeypatch.chdir(tmp_path)
    assert load_suite("quick").row("tokens")


def test_a_suite_has_of_its_base_what_it_does_not_say_itself() -> None:
    own = "base: study\ntrain: {bytes: 8_000_000}\nrows:\n  mine: {patcher: stride}\n"
    made, study = suite_from_tree(parse(own, "own.yaml"), "own", ["train.lr=1e-3"], []), load_suite("study")
    theirs = study.row("stride@8000000")
    assert made.data == study.data
    assert (made.match, made.bytes_per_patch, made.seeds) == (study.match, study.bytes_per_patch, (0,))
    [row] = made.rows
    assert row.sizes == theirs.sizes
    assert row.train == dataclasses.replace(theirs.train, lr=1e-3)
    assert "sweep" not in made.run_config("mine")


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("studdy", "own.yaml, line 1: base: unknown suite 'studdy', did you mean 'study'?"),
        ("[study]", "own.yaml, line 1: base: wanted a path, or the name of a suite that ships, got ['study']"),
        ("hash_ngrams", "own.yaml, line 1: base: hash_ngrams has a base itself, or is no suite"),
    ],
)
def test_a_base_is_a_suite_that_stands_alone(base: str, said: str) -> None:
    with pytest.raises(BenchError) as error:
        suite_from_tree(parse(f"base: {base}\nrows:\n  mine: {{patcher: stride}}\n", "own.yaml"), "own", [], [])
    assert said in str(error.value)


def test_plugins_are_loaded_before_patchers_are_asked_for(tmp_path: Path) -> None:
    plugin = tmp_path / "halves.py"
    plugin.write_text(
        "import numpy as np\n"
        "from patchers import Patcher, register\n"
        "@register('config-test-halves')\n"
        "class Halves(Patcher):\n"
        "    def segment(self, data):\n"
        "        starts = np.zeros(len(data), bool)\n"
        "        starts[:1] = True\n"
        "        return starts\n"
    )
    text = edited("{patcher: stride}", "{patcher: config-test-halves}")
    assert "unknown patcher" in message(text)
    read = suite(f"plugins: [{plugin}]\n{text}").row("stride")
    assert read.patcher is not None
    assert read.patcher.name == "config-test-halves"
    assert "plugins.0" in message(f"plugins: [{tmp_path}/none.py]\n{text}")


def test_run_config_is_what_the_numbers_depend_on() -> None:
    base = suite()
    same = suite(SUITE, "train.checkpoint_seconds=5", "seeds=[3]", "rows.more.patcher=random", "tasks=[bpb]")
    assert base.run_config("stride") == same.run_config("stride")
    for override in ("train.lr=1", "model.latent_width=384", "data.test=0.1", "bytes_per_patch=5"):
        assert base.run_config("stride") != suite(SUITE, override).run_config("stride"), override
    # What a row does not use does not make it another run.
    assert base.run_config("tokens") == suite(SUITE, "bytes_per_patch=5", "model.slots=2").run_config("tokens")
    assert base.run_config("whitespace") == suite(SUITE, "bytes_per_patch=5").run_config("whitespace")


def test_a_row_may_have_a_size_of_its_own() -> None:
    base = suite()
    text = edited("  bpe: {patcher: bpe}", "  bpe: {patcher: bpe, bytes_per_patch: whitespace}")
    own = suite(text, "rows.random={patcher: random, bytes_per_patch: 6}")
    sizes = {row.label: row.bytes_per_patch for row in own.rows}
    assert sizes == {
        **{"stride": 4.5, "whitespace": None, "bpe": "whitespace", "bpe-leaky": 4.5, "tokens": None, "bytes": None},
        "random": 6,
    }
    for label in ("stride", "whitespace", "tokens", "bytes"):  # the others are the runs that they were
        assert own.run_config(label) == base.run_config(label)
    whole = suite(SUITE, "bytes_per_patch=whitespace")
    assert own.run_config("bpe") == whole.run_config("bpe"), "it says the same as if it stood above all rows"
    # where the row whose size is taken has its own from somewhere, that is part of what the run is
    chained = [
        suite(text, f"rows.bpe.bytes_per_patch={stride}").run_config("bpe") for stride in ("stride", "whitespace")
    ]
    assert chained[0]["bytes_per_patch"]["bytes_per_patch"] == 4.5
    assert "bytes_per_patch" not in chained[1]["bytes_per_patch"]


def test_a_size_taken_from_a_row_is_part_of_what_a_run_is() -> None:
    text = edited("bytes_per_patch: 4.5", "bytes_per_patch: words")
    text += "  words: {patcher: {name: words, every: 1}}\n"
    base = suite(text)
    assert not base.row("words").calibrate
    size = base.run_config("stride")["bytes_per_patch"]
    assert size["row"] == "words"
    assert size["patcher"]["name"] == "words"
    assert base.run_config("stride") != suite(text, "rows.words.patcher.every=2").run_config("stride")


# --- what is refused


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  lr: 3e-4", "  lrr: 3e-4", "mine.yaml, line 4: train.lrr: unknown key, did you mean 'lr'?"),
        ("train:", "trian:", "mine.yaml, line 3: trian: unknown key, did you mean 'train'?"),
        ("3e-4", "fast", 'mine.yaml, line 4: train.lr: wanted a number, got "fast"'),
        ("3e-4", '"3e-4"', 'line 4: train.lr: wanted a number, got "3e-4"'),
        ("3e-4", "true", "line 4: train.lr: wanted a number, got true"),
        ("3e-4", "-1", "line 4: train.lr: wanted greater than 0, got -1"),
        ("3e-4", "", "line 4: train.lr: wanted a number, got null"),
        ("1_000_000", "1.5", "line 5: train.bytes: wanted a whole number, got 1.5"),
        ("1_000_000", "100\n  window: 99999", "line 6: train.window: batch_bytes is 4096 and window 99999"),
        ("wiki-en", "wiki-eng", "line 2: data.corpus: unknown corpus 'wiki-eng', did you mean 'wiki-en'?"),
        ("corpus: wiki-en", "test: 0.1", "line 1: data: got no source, wanted exactly one of"),
        ("corpus: wiki-en", "dataset: {name: x}", "line 2: data.dataset: missing key 'path'"),
        ("corpus: wiki-en", "files: [3]", "line 2: data.files.0: wanted text, got 3"),
        ("data:\n  corpus: wiki-en\n", "", "mine.yaml, line 1: missing key 'data'"),
        (
            "{patcher: stride}",
            "{patcher: strid}",
            "rows.stride.patcher.name: unknown patcher 'strid', did you",
        ),
        (
            "{name: whitespace}",
            "{name: whitespace, size: 3}",
            "line 10: rows.whitespace.patcher.size: patcher",
        ),
        (
            "{name: whitespace}",
            "{names: whitespace}",
            "rows.whitespace.patcher.name: wanted a patcher's name",
        ),
        ("{patcher: stride}", "{}", "line 8: rows.stride: a harness needs a patcher"),
        ("{patcher: stride}", "stride", 'line 8: rows.stride: wanted keys and values, got "stride"'),
        (
            "{patcher: stride}",
            "{patcher: stride, price: end}",
            "rows.stride.price: only a harness whose patcher",
        ),
        (
            "{patcher: stride}",
            "{patcher: stride, leaky: true}",
            "rows.stride.leaky: only a harness whose patcher",
        ),
        ("leaky: true", "leaky: true, price: end", "line 12: rows.bpe-leaky.leaky: a leaky row leaves"),
        ("{patcher: bpe}", "{patcher: bpe, price: both}", "rows.bpe.price: wanted 'end' or 'start', got"),
        (
            "{patcher: stride}",
            "{patcher: {name: stride, stride: 8}}",
            "stride.patcher.stride: calibration to",
        ),
        (
            "{patcher: stride}",
            "{patcher: stride, train: {lr: x}}",
            "line 8: rows.stride.train.lr: wanted a num",
        ),
        ("{patcher: stride}", "{patcher: stride, options: {wdith: 3}}", "rows.stride.options.wdith: unknown"),
        ("model: byte_lm", "model: byte_lm, patcher: stride", "rows.bytes.patcher: a byte_lm has no patches"),
        ("{name: bpe, vocab: 300}", "stride", "rows.tokens.patcher: a token_lm needs a patcher with a vocab"),
        ("  stride:", "  a/b:", "line 8: rows.a/b: 'a/b' cannot name files"),
        (
            "4.5",
            "strides",
            "line 6: bytes_per_patch: wanted a number of at least 1 or a row that has a patcher",
        ),
        ("4.5", "bytes", "bytes_per_patch: wanted a number of at least 1 or a row that has a patcher"),
        (
            "{patcher: stride}",
            "{patcher: stride, bytes_per_patch: bytes}",
            "line 8: rows.stride.bytes_per_patch: wanted a number of at least 1 or a row that has a patcher",
        ),
        (
            "{patcher: stride}",
            "{patcher: stride, bytes_per_patch: 0.9}",
            "rows.stride.bytes_per_patch: wanted greater than or equal to 1",
        ),
        (
            "{name: whitespace}",
            "{name: whitespace}\n    bytes_per_patch: 5",
            "line 11: rows.whitespace.bytes_per_patch: the row has no knob to set",
        ),
        (
            "{patcher: stride}",
            "{patcher: stride, calibrate: false, bytes_per_patch: 5}",
            "rows.stride.bytes_per_patch: the row is not calibrated",
        ),
        (
            "4.5\nrows:\n  stride: {patcher: stride}",
            "bpe\nrows:\n  stride: {patcher: stride}\n  more: {patcher: bpe, bytes_per_patch: more2}\n"
            "  more2: {patcher: bpe, bytes_per_patch: more}",
            "line 9: rows.more.bytes_per_patch: rows take their sizes in a circle, more to more2 to more",
        ),
        ("4.5", "0.5", "line 6: bytes_per_patch: wanted greater than or equal to 1 or text, got 0.5"),
        ("4.5", "4.5\ntasks: [bpd]", "line 7: tasks.0: unknown task 'bpd', did you mean 'bpb'?"),
        ("4.5", "4.5\nseeds: [0, 0]", "line 7: seeds: each seed counts once, got [0, 0]"),
        ("4.5", "4.5\nseeds: [one]", 'line 7: seeds.0: wanted a whole number, got "one"'),
        ("4.5", "4.5\nseeds: []", "line 7: seeds: wanted"),
        ("4.5", "4.5\nseeds: 1", "line 7: seeds: wanted a list, got 1"),
        (
            "  bytes: 1_",
            "  lr: 1\n  bytes: 1_",
            "line 5: train.lr stands here and in line 4; keep one of them",
        ),
        ("4.5", "[4.5", "mine.yaml, line 7: not YAML: "),
        ("4.5", "!!python/name:os.system x", "line 6: bytes_per_patch: the tag"),
        ("4.5", "&a [*a]", "line 6: bytes_per_patch.0: an alias stands inside of what it repeats"),
        ("4.5", "[" * 101, "mine.yaml, line 6: not YAML: more than 100 brackets inside one another"),
        ("4.5", "[" * 100_000, "mine.yaml, line 6: not YAML: more than 100 brackets inside one another"),
        ("4.5", "\n" + "- " * 3000, "mine.yaml: its values are nested too deeply to be read"),
        ("4.5", '"\\U00110000"', "mine.yaml: not YAML: "),
        ("4.5", f"4.5\nbomb: [{BOMB}]", "mine.yaml: more than 100,000 values, aliases counted"),
        ("4.5", f"4.5\nname: {'n' * 81}", "line 7: name: 'nnn"),
        ("4.5", "4.5\nmodel: {local_width: 0}", "line 7: model.local_width: wanted at least 1, got 0"),
        ("4.5", "4.5\nmodel: {ngrams: [3, -1]}", "line 7: model.ngrams: wanted at least 1, got -1"),
        ("4.5", "4.5\nmodel: {byte_std: -1}", "line 7: model.byte_std: wanted a number of at least 0, got -1"),
        ("4.5", "4.5\nmodel: {latent_heads: 5}", "model.latent_width: wanted a multiple of 10 (twice latent_heads; "),
        ("{patcher: stride}", "{patcher: stride, options: {slots: 0}}", "rows.stride.options.slots: wanted at le"),
        ("4.5", "4.5\nplugins: ['~nobody-there/x.py']", "line 7: plugins.0: no plug-in file at ~nobody-there/x.py"),
        ("4.5", f"4.5\nplugins: [{'x' * 300}]", "line 7: plugins.0: no plug-in file at xxx"),
        (
            "4.5\nrows:\n  stride: {patcher: stride}",
            "4.5\nlaunch: {micro_bytes: 2048}\nrows:\n  stride: {patcher: stride, train: {compile: cuda_graphs}}",
            "line 7: launch.micro_bytes: row 'stride' has compile: cuda_graphs, which wants one rank and each batch in",
        ),
        (
            "4.5\nrows:\n  stride: {patcher: stride}",
            "4.5\nlaunch: {devices: 2}\nrows:\n  stride: {patcher: stride, train: {compile: cuda_graphs}}",
            "line 7: launch.devices: row 'stride' has compile: cuda_graphs, which wants one rank and each batch in one",
        ),
    ],
)
def test_errors_name_the_line_the_path_and_the_nearest(old: str, new: str, expected: str) -> None:
    assert expected in message(edited(old, new))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lr=abc", "override 'train.lr=abc': train.lr: wanted a number, got \"abc\""),
        ("train.lrr=1", "override 'train.lrr=1': train.lrr: unknown key, did you mean 'lr'?"),
        ("train.batch_bytes=10", "override 'train.batch_bytes=10': train.batch_bytes: batch_bytes is 10"),
        ("train", "override 'train' is not key=value"),
        ("=3", "override '=3' is not key=value"),
        ("train.lr.x=3", "override 'train.lr.x=3': train.lr is 0.0003, with no keys below it"),
        ("seeds=[0", "override 'seeds=[0', line 1: not YAML"),
        ("rows.x.y.z=3", "override 'rows.x.y.z=3': rows.x.y: unknown key"),
        (
            "rows.stride.patcher=nothing",
            "override 'rows.stride.patcher=nothing': rows.stride.patcher.name: unk",
        ),
        ("rows.tokens.patcher.vocb=1", "rows.tokens.patcher.vocb: patcher 'bpe' has no option 'vocb'"),
        (
            "rows.tokens.patcher.vocab=many",
            "rows.tokens.patcher.vocab: option 'vocab' of patcher 'bpe' must be",
        ),
    ],
)
def test_errors_name_the_override(override: str, expected: str) -> None:
    assert expected in message(SUITE, override)


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n", "\x00"])
def test_not_a_suite(text: str) -> None:
    assert message(text).startswith("mine.yaml")


def test_suites_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    for name, expected in (
        ("quik", "unknown suite 'quik', did you mean 'quick'?"),
        (str(tmp_path / "mine.yaml"), "no suite at"),
        ("mine.yaml", "no suite at mine.yaml (from"),
        (str(tmp_path), "no suite at"),
        (str(tmp_path / "latin.yaml"), "cannot read suite"),
        ("x" * 300, "unknown suite"),
        ("~nobody-there/mine.yaml", "no suite at ~nobody-there/mine.yaml"),
    ):
        with pytest.raises(BenchError) as caught:
            load_suite(name)
        assert expected in str(caught.value)
    with pytest.raises(BenchError, match="unknown row 'strid', did you mean 'stride'"):
        suite().row("strid")


# --- YAML's scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e3", 1000.0),
        ("-2.5E+1", -25.0),
        (".5", 0.5),
        ("4.", 4.0),
        ("1_000.5", 1000.5),
        ("1_000", 1000),
        ("-7", -7),
        ("007", 7),
        ("null", None),
        ("~", None),
        ("", None),
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1e", "1e"),
        ("-", [None]),
        (".", "."),
        ("'3'", "3"),
        ("!!str 3", "3"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    read = parse(text, "x").value
    assert read == value
    assert type(read) is type(value)


plain_keys = st.text("abcdefgh_-", min_size=1, max_size=5)
basic = st.text(st.characters(max_codepoint=0xD7FF))  # JSON's escapes beyond are pairs, which YAML has not
names = st.text(st.characters(max_codepoint=0xD7FF), max_size=100)  # YAML has no key of more than 1,024 characters
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | basic,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(names, inside, max_size=3),
    max_leaves=8,
)


@given(values)
def test_json_is_read_as_json(value: Any) -> None:
    assert parse(json.dumps(value), "x").value == value


@given(st.dictionaries(plain_keys, values, max_size=4), st.lists(plain_keys, min_size=1, max_size=3), values)
def test_an_override_sets_its_value_and_nothing_else(tree: dict[str, Any], path: list[str], value: Any) -> None:
    parsed = parse(json.dumps(tree), "x")
    try:
        parsed.override(f"{'.'.join(path)}={json.dumps(value)}")
    except BenchError:
        return  # something in the way that has no keys
    inside, before = parsed.value, tree
    for key in path[:-1]:
        assert {k: v for k, v in inside.items() if k != key} == {k: v for k, v in before.items() if k != key}
        inside, before = inside[key], before.get(key) or {}
    assert inside == before | {path[-1]: value}


# --- DESIGN 2, house rule 8


CONFIGS = (
    *(TrainConfig, DataConfig, DatasetConfig, HarnessConfig, TokenLMConfig, ByteLMConfig),
    *(LaunchConfig, SlurmConfig),
)


def attributes_read(text: str) -> set[str]:
    """Names that code reads from something, `config.name`; declaring or setting a field is not reading it."""
    return {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_every_config_field_is_read_by_code() -> None:
    code = {"models": "models/*.py", "bench": "bench/**/*.py"}
    read = {
        name: set().union(*(attributes_read(path.read_text()) for path in ROOT.glob(pattern)))
        for name, pattern in code.items()
    }
    for cls in CONFIGS:
        package = cls.__module__.split(".")[0]
        unread = {f.name for f in dataclasses.fields(cls)} - read[package]
        assert not unread, f"{cls.__name__} has fields that no code in {package} reads: {sorted(unread)}"


def test_what_local_models_are_told_is_in_the_name_of_a_run(tmp_path: Path) -> None:
    """Nothing where boundaries are free, the flags where they are paid for or leak, and what a row says."""
    rows: dict[str, dict[str, Any]] = {
        "free": {"patcher": "stride"},
        "priced": {"patcher": "bpe"},
        "leaky": {"patcher": "bpe", "leaky": True},
        "told": {"patcher": "stride", "options": {"boundary_inputs": "prefix"}},
    }
    model = {key: value for key, value in MODEL.items() if key != "boundary_inputs"}
    suite = tiny_suite(tmp_path, rows=rows, model=model)
    found = {label: suite.run_config(label)["model"]["boundary_inputs"] for label in rows}
    assert found == {"free": "none", "priced": "flag", "leaky": "flag", "told": "prefix"}
    silent = tiny_suite(tmp_path, rows=rows, model={**model, "boundary_inputs": "none"})
    assert silent.run_config("priced")["model"]["boundary_inputs"] == "flag", "what is paid for must be usable"
    bad: dict[str, Any] = {"patcher": "bpe", "options": {"boundary_inputs": "none"}}
    with pytest.raises(BenchError, match=r"rows\.priced\.options\.boundary_inputs: .*what is paid for must be usable"):
        tiny_suite(tmp_path, rows={"priced": bad})
