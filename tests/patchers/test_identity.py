"""What code a class is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import patchers
from patchers.identity import code_identity

PLUGIN = """
import numpy as np
from patchers import Patcher, register

@register("{name}")
class Mine(Patcher):
    '''What it does.'''
    def segment(self, data):
        return np.ones(len(data), dtype=bool)
"""


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
        from patchers.identity import _of_files

        found.append(_of_files(path, path.stat().st_mtime_ns))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_an_installed_package_is_known_by_name_and_version() -> None:
    """pytest stands for one: a class of it lies in site-packages."""
    found = code_identity(pytest.Item)
    assert found is not None
    assert found.startswith("pytest ")


def test_a_class_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was typed at a prompt."""
    made = type("Typed", (), {"__module__": "typed_at_a_prompt"})
    monkeypatch.delitem(sys.modules, "typed_at_a_prompt", raising=False)
    assert code_identity(made) == "typed_at_a_prompt.Typed"


def test_files_that_a_plugin_names_are_part_of_what_it_is(tmp_path: Path) -> None:
    """It cuts by a list of words in a file beside it."""
    from patchers.identity import _of_files

    source = PLUGIN.format(name="identity-words") + "WORDS = open(__file__.rsplit('/', 1)[0] + '/words.txt').read()\n"
    found = []
    for folder, words in (("a", "the of"), ("b", "the of"), ("c", "the of and")):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(source.replace("/words.txt", "/lists/words.txt"))
        (path.parent / "lists").mkdir()
        (path.parent / "lists" / "words.txt").write_text(words)
        (path.parent / "other.txt").write_text(folder)
        found.append(_of_files(path, path.stat().st_mtime_ns))
    assert found[0] == found[1] != found[2]
