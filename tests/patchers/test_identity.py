"""What code a class is."""

from __future__ import annotations

import hashlib
import linecache
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

import patchers
from patchers.errors import BenchError
from patchers.identity import code_identity, of_files, pinned
from patchers.registry import PLUGIN as PLUGIN_MODULE

PLUGIN = """
import numpy as np
from patchers import Patcher, register

@register("{name}")
class Mine(Patcher):
    '''What it does.'''
    def segment(self, data):
        return np.ones(len(data), dtype=bool)
"""


@pytest.fixture(autouse=True)
def _no_plugin_stays() -> Iterator[None]:
    """Other tests begin processes that load all plug-ins that there are."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(PLUGIN_MODULE):
            del sys.modules[name]


def identity(path: Path, name: str) -> str:
    patchers.load_plugin(path)
    found = code_identity(patchers.get(name))
    assert found is not None
    return found


def test_ours_have_versions_instead() -> None:
    for name in ("stride", "bpe", "entropy", "hnet"):
        assert code_identity(patchers.get(name)) is None


def test_files_are_known_by_what_they_do(tmp_path: Path) -> None:
    texts = {
        "a": PLUGIN.format(name="identity-a"),
        "b": PLUGIN.format(name="identity-a").replace("'''What it does.'''", "'''Something else.'''  # and a comment"),
        "c": PLUGIN.format(name="identity-a").replace("np.ones", "np.zeros"),
    }
    found = []
    for folder, text in texts.items():
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(text)
        spec = patchers.load_plugin(path) if folder == "a" else None
        if spec is not None:
            found.append(identity(path, "identity-a"))
            continue
        # the same name cannot be registered twice: the file alone is asked
        found.append(of_files(path))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_an_installed_package_is_known_by_name_and_version() -> None:
    """pytest stands for one: a class of it lies in site-packages."""
    found = code_identity(pytest.Item)
    assert found is not None
    assert found.startswith("pytest ")


def test_files_that_a_plugin_names_are_part_of_what_it_is(tmp_path: Path) -> None:
    """It cuts by a list of words in a file beside it."""
    source = PLUGIN.format(name="identity-words") + "WORDS = open(__file__.rsplit('/', 1)[0] + '/words.txt').read()\n"
    found = []
    for folder, words in (("a", "the of"), ("b", "the of"), ("c", "the of and")):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(source.replace("/words.txt", "/lists/words.txt"))
        (path.parent / "lists").mkdir()
        (path.parent / "lists" / "words.txt").write_text(words)
        (path.parent / "other.txt").write_text(folder)
        found.append(of_files(path))
    assert found[0] == found[1] != found[2]


# --- edited while a process lives

STRIDES = """
import numpy as np
from patchers import Patcher, register
from identity_{name} import EVERY

@register("identity-{name}")
class Mine(Patcher):
    def segment(self, data):
        return np.arange(len(data)) % EVERY == 0
"""


@pytest.mark.parametrize("name", ["edited", "neighbour"])
def test_what_is_imported_is_the_code_that_it_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit counts when the plug-in is loaded again, and then its code is the new one, with all that it imports."""
    monkeypatch.syspath_prepend(tmp_path)
    path, beside = tmp_path / "mine.py", tmp_path / f"identity_{name}.py"
    path.write_text(STRIDES.format(name=name))
    beside.write_text("EVERY = 8")
    before = identity(path, f"identity-{name}")
    old = patchers.create(f"identity-{name}")
    if name == "edited":
        path.write_text(STRIDES.format(name=name).replace("% EVERY", "% 3"))
    else:
        beside.write_text("EVERY = 3  # now")
    assert code_identity(patchers.get(f"identity-{name}")) == before, "what is in memory was not edited"
    assert old.segment(bytes(9)).sum() == 2
    after = identity(path, f"identity-{name}")
    assert after == of_files(path) != before
    assert patchers.create(f"identity-{name}").segment(bytes(9)).sum() == 3
    assert code_identity(type(old)) == before, "of what was made by then, too"
    assert old.segment(bytes(9)).sum() == 2


def test_what_was_saved_by_other_code_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "mine.py"
    (tmp_path / "identity_saved.py").write_text("EVERY = 8")
    path.write_text(STRIDES.format(name="saved"))
    patchers.load_plugin(path)
    patchers.create("identity-saved").save(tmp_path / "kept")
    assert patchers.load(tmp_path / "kept").segment(bytes(9)).sum() == 2
    path.write_text(STRIDES.format(name="saved").replace("% EVERY", "% 3"))
    patchers.load_plugin(path)
    with pytest.raises(BenchError, match="'identity-saved' of other code than its plug-in has now"):
        patchers.load(tmp_path / "kept")
    path.write_text("# as it was\n" + STRIDES.format(name="saved"))
    patchers.load_plugin(path)
    assert patchers.load(tmp_path / "kept").segment(bytes(9)).sum() == 2


# --- what is in no file

CELL = """
import re
import numpy as np
STEP = 4
UNUSED = 1
WORD = re.compile(b"a")
TABLE = np.arange(5)

def helper(data):
    '''Says what it does.'''
    return len(data) // STEP

class Cell:
    '''A class of a notebook.'''
    option: int = 1

    def segment(self, data):
        # a comment
        return [WORD.sub(b"", data), TABLE, [helper(data) for _ in range(3)]]
"""


def typed(source: str, monkeypatch: pytest.MonkeyPatch, known: bool = True) -> type:
    """The class as a cell of a notebook has made it: its module is in no file, its source is where tracebacks look."""
    name = f"<cell {hashlib.sha256(source.encode()).hexdigest()[:8]}>"
    if known:
        lines = source.splitlines(keepends=True)
        monkeypatch.setitem(linecache.cache, name, (len(source), None, lines, name))
    names: dict[str, object] = {"__name__": "a_notebook"}
    exec(compile(source, name, "exec"), names)
    made = names["Cell"]
    assert isinstance(made, type)
    return made


@pytest.mark.parametrize("known", [True, False], ids=["with its source", "by its code alone"])
@pytest.mark.parametrize(
    ("old", "new", "is_another"),
    [
        ("for _ in range(3)", "for _ in range(4)", True),
        ("STEP = 4", "STEP = 5", True),
        ("len(data) // STEP", "len(data) * STEP", True),
        ('b"a"', 'b"b"', True),
        ("np.arange(5)", "np.arange(6)", True),
        ("option: int = 1", "option: int = 2", True),
        ("UNUSED = 1", "UNUSED = 2", False),
        ("STEP = 4", "\n\n\nSTEP = 4", False),
    ],
)
def test_a_class_of_a_notebook_is_known_by_its_code(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, is_another: bool, known: bool
) -> None:
    assert old in CELL
    codes = [code_identity(typed(source, monkeypatch, known)) for source in (CELL, CELL.replace(old, new))]
    assert (codes[0] != codes[1]) == is_another
    assert code_identity(typed(CELL, monkeypatch, known)) == codes[0]


@pytest.mark.parametrize(("old", "new"), [("# a comment", "# another"), ("A class of a notebook", "Of a notebook")])
def test_comments_do_not_count_there_either(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    assert code_identity(typed(CELL, monkeypatch)) == code_identity(typed(CELL.replace(old, new), monkeypatch))


def test_a_base_beside_it_is_part_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    source = CELL.replace("class Cell:", "class Base:") + "\nclass Cell(Base):\n    pass\n"
    codes = {code_identity(typed(one, monkeypatch)) for one in (source, source.replace("range(3)", "range(4)"))}
    assert len(codes) == 2


def test_the_identity_goes_with_a_class_into_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made = typed(CELL, monkeypatch)
    code = code_identity(made)
    with pinned([made]):
        sent = cloudpickle.dumps(made)
    assert not hasattr(made, "_patchbench_code")
    tell = "import cloudpickle, sys; from patchers.identity import code_identity as code; "
    tell += "print(code(cloudpickle.loads(sys.stdin.buffer.read())))"
    done = subprocess.run([sys.executable, "-c", tell], input=sent, capture_output=True)
    assert done.stdout.decode().strip() == code, done.stderr.decode()
    assert code_identity(typed(CELL, monkeypatch)) == code
