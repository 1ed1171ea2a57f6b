"""Names, options and plug-ins: decorator, file, and an installed package."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributions import EXAMPLE, distribution

import patchers
from patchers import BenchError, Patcher, registry
from patchers.audit import audit
from patchers.base import Starts

PLUGIN = """
import numpy as np
from patchers import Patcher, register

@register("mine")
class Mine(Patcher):
    size: int = 2

    def segment(self, data):
        return np.arange(len(data)) % self.size == 0
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers or imports is gone after it."""
    patchers.names()  # so that ours are there, which are imported when they are first asked for
    monkeypatch.setattr(registry.PATCHERS, "classes", dict(registry.PATCHERS.classes))
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith(("patchbench_", "other_")):
            del sys.modules[name]




def test_ten_lines_make_a_patcher(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    patchers.load_plugin(tmp_path / "mine.py")
    assert "mine" in patchers.names()
    mine = patchers.create("mine", size=3)
    assert mine.segment(b"abcdefg").tolist() == [True, False, False, True, False, False, True]
    assert mine.options() == {"size": 3}
    assert dataclasses.is_dataclass(mine)
    with pytest.raises(dataclasses.FrozenInstanceError):
        mine.size = 4  # type: ignore[attr-defined]
    assert all(finding.passed for finding in audit(mine, [b"some text of a user"]))


def test_a_file_is_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    assert patchers.load_plugin(tmp_path / "mine.py") is patchers.load_plugin(str(tmp_path / "mine.py"))


def test_an_edited_plugin_has_another_fingerprint(tmp_path: Path) -> None:
    """Cuts are cached by fingerprint; those of an old rule must not outlive it."""
    prints = []
    for folder, code in (("a", PLUGIN), ("b", PLUGIN), ("c", PLUGIN.replace("== 0", "== 1"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(code)
        registry.PATCHERS.classes.pop("mine", None)
        patchers.load_plugin(tmp_path / folder / "mine.py")
        prints.append(patchers.create("mine").fingerprint())
    assert prints[0] == prints[1] != prints[2]


def test_a_name_that_is_taken_names_both_places(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace('"mine"', '"stride"'))
    with pytest.raises(BenchError, match=r"'stride' is defined twice, in .*rules\.py and in .*mine\.py: rename one"):
        patchers.load_plugin(tmp_path / "mine.py")


def test_a_broken_file_raises_its_own_exception_and_can_be_mended(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import numpy\n1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        patchers.load_plugin(file)
    file.write_text(PLUGIN)
    patchers.load_plugin(file)
    assert patchers.create("mine").segment(b"ab").tolist() == [True, False]


def test_files_that_are_none() -> None:
    with pytest.raises(BenchError, match=r"no plug-in file at nowhere\.py: give the path"):
        patchers.load_plugin("nowhere.py")
    with pytest.raises(BenchError, match="is no Python file"):
        patchers.load_plugin(EXAMPLE / "pyproject.toml")


def test_the_example_package_is_installable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built by its own backend, laid where an installer would lay it, found by its entry point."""
    shutil.copytree(EXAMPLE, tmp_path / "source")
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert "example_pairs" in patchers.names()
    assert "patchbench_example" not in sys.modules  # a list imports nothing
    pairs = patchers.create("example_pairs")
    assert type(pairs).__module__ == "patchbench_example.pairs"
    assert np.flatnonzero(pairs.segment(b"hello all")).tolist() == [0, 4, 9][:2]
    assert patchers.get("example_pairs") is type(pairs)
    findings = audit(pairs, [b"a letter, an apple and a balloon"])
    assert [finding for finding in findings if not finding.passed] == []
    assert patchers.create("example_pairs", least=3).fingerprint() != pairs.fingerprint()


def test_a_broken_package_hurts_only_who_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "other_broken", "broken = other_broken:Broken", "import a_module_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    assert {"broken", "stride"} <= set(patchers.names())
    assert patchers.create("stride").segment(b"abcde").sum() == 2
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        patchers.get("broken")


def test_two_packages_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "other_mine", "mine = other_mine:Mine", PLUGIN)
    distribution(tmp_path, "other_bytes", "bytes = other_bytes:Bytes", PLUGIN.replace('"mine"', '"bytes"'))
    monkeypatch.syspath_prepend(tmp_path)
    assert patchers.get("mine").__module__ == "other_mine"
    with pytest.raises(BenchError, match=r"'bytes' is defined twice, in other_bytes and in patchers\.rules: uninstall"):
        patchers.get("bytes")


def test_an_entry_point_must_register_what_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "other_wrong", "wrong = other_wrong:Mine", PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(BenchError, match="entry point 'wrong' loads other_wrong:Mine, which registers no such patcher"):
        patchers.get("wrong")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: patchers.get("whitspace"),
            r"unknown patcher 'whitspace', did you mean 'whitespace'\?; there are: .*bpe, ",
        ),
        (lambda: patchers.get("qqqqqq"), r"unknown patcher 'qqqqqq'; there are: "),
        (
            lambda: patchers.create("stride", stirde=4),
            r"patcher 'stride' has no option 'stirde', did you mean 'stride'\?; it has: stride",
        ),
        (lambda: patchers.create("bytes", size=4), "'bytes' has no option 'size'; it has none"),
        (lambda: patchers.create("entropy", _learnt=None), "'entropy' has no option '_learnt'"),
        (
            lambda: patchers.create("stride", stride="4"),
            "option 'stride' of patcher 'stride' must be a number, got '4'",
        ),
        (lambda: patchers.create("words", every=2.5), "must be a whole number, got 2.5"),
        (lambda: patchers.create("words", every=True), "must be a whole number, got True"),
        (lambda: patchers.create("entropy", model="lstm"), r"must be ngram \| transformer, got 'lstm'"),
        (lambda: patchers.create("entropy", max_patch="x"), r"must be a whole number \| null, got 'x'"),
    ],
)
def test_what_a_user_can_mend_is_said(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BenchError, match=words):
        call()


def test_a_whole_number_is_a_number() -> None:
    assert patchers.create("stride", stride=4).options() == {"stride": 4}


def test_at_least_sixteen_methods_are_built_in() -> None:
    ours = [name for name in patchers.names() if patchers.get(name).__module__.startswith("patchers.")]
    assert len(ours) >= 16
    assert all(patchers.get(name).__doc__ for name in ours)


def test_saved_patchers_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no saved patcher can be read from"):
        patchers.load(tmp_path)
    (tmp_path / "patcher.json").write_text("{}")
    with pytest.raises(BenchError, match="is not a saved patcher: it has no 'arrays'"):
        patchers.load(tmp_path)
    patchers.create("stride").save(tmp_path)
    with pytest.raises(BenchError, match="holds patcher 'stride', not 'bytes'"):
        patchers.get("bytes").load(tmp_path)


def test_the_default_stream_and_the_hooks_of_other_kinds() -> None:
    class Vowels(Patcher):
        def segment(self, data: bytes) -> np.ndarray:
            starts = np.ones(len(data), dtype=bool)
            starts[1:] = np.isin(np.frombuffer(data, dtype=np.uint8)[:-1], list(b"aeiou"))
            return starts

    stream, data = Vowels().stream(), b"the default recomputes"
    assert [stream.push(byte) for byte in data][:-1] == Vowels().segment(data)[1:].tolist()
    with pytest.raises(BenchError, match="only kind 'in-model' has a router"):
        Vowels().router(8)
    with pytest.raises(BenchError, match="'bpe' is not causal and cannot cut a document that is still being written"):
        patchers.create("bpe").stream()


def test_what_is_no_patcher_cannot_be_registered() -> None:
    class Something:
        pass

    with pytest.raises(BenchError, match=r"Something .* is registered as patcher 'something' and is no Patcher: write"):
        patchers.register("something")(Something)  # type: ignore[type-var]
    with pytest.raises(BenchError, match="is registered as patcher 'function' and is no Patcher"):
        patchers.register("function")(lambda data: data)  # type: ignore[arg-type]
    for name in ("", None, 3):
        with pytest.raises(BenchError, match="needs a name"):
            patchers.register(name)(Something)  # type: ignore[arg-type, type-var]
    assert "something" not in patchers.names()


def test_a_patcher_has_the_methods_of_one() -> None:
    """`segment` that is misspelt, or takes nothing, is found when the plug-in is loaded, not while it cuts."""

    class Misspelt(Patcher):
        def sgment(self, data: bytes) -> Starts:
            return np.ones(len(data), bool)

    class Nothing(Patcher):
        def segment(self) -> Starts:  # type: ignore[override]
            return np.ones(1, bool)

    class Static(Patcher):
        @staticmethod
        def segment(data: bytes) -> Starts:
            return np.ones(len(data), bool)

    with pytest.raises(BenchError, match=r"patcher 'registry-misspelt' in .* has no method segment"):
        patchers.register("registry-misspelt")(Misspelt)  # type: ignore[type-abstract]
    with pytest.raises(BenchError, match=r"has segment\(self\) -> 'Starts', wanted segment\(self, data\)"):
        patchers.register("registry-nothing")(Nothing)
    assert patchers.register("registry-static")(Static)().segment(b"ab").sum() == 2
    del patchers.registry.PATCHERS.classes["registry-static"]
