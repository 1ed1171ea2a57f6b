"""What the pages of docs/ tell one to type: the tutorial is followed to its end, other commands are known ones."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

from bench.cli.main import app, main
from bench.suites.config import suite_from_tree
from bench.system.yaml import parse

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TUTORIAL = ROOT / "docs" / "tutorial.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_the_tutorial_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in [*blocks(TUTORIAL, "python"), *blocks(TUTORIAL, "yaml")]:
        first = re.match(r"# (\S+)\n", block)
        assert first is not None, "a file begins with its name"
        (tmp_path / first[1]).write_text(block, encoding="utf-8")
    said = []
    for program, *words in commands(TUTORIAL):
        assert program == "patchbench"
        at = words.index(">") if ">" in words else len(words)
        words, to = words[:at], words[at + 1 :]
        assert main(words) == 0, words
        out = capsys.readouterr().out
        said.append(out)
        if to:
            (tmp_path / to[0]).write_text(out)
    assert sum("sound: all" in out for out in said) == 1
    assert "\nvowels & " in (tmp_path / "table.tex").read_text()
    assert "\\toprule" in (tmp_path / "table.tex").read_text()
    assert (tmp_path / "differences.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "results" / "mine" / "runs").glob("*.json"))) == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_pages_are_known(page: Path) -> None:
    group = typer.main.get_command(app)
    known = getattr(group, "commands", {})
    for program, *words in commands(page):
        if program == "patchbench":
            assert words[0] in known, words
            named = [known[words[0]], *getattr(known[words[0]], "commands", {}).values()]
            options = {name for one in named for parameter in one.params for name in parameter.opts}
            assert {word for word in words if word.startswith("-")} <= options, words
        elif program == "make":
            rules = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert all(re.search(rf"^{word}:", rules, re.MULTILINE) for word in words[1:] if "=" not in word)


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "how-to"], ids=lambda page: page.name)
def test_parts_of_suites_in_the_how_tos_are_read(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as they go without the files that they name."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "yaml"):
        tree = parse(block, page.name)
        if "tokenizer" in block:
            assert set(tree.value["rows"]) == {"mine", "pieces", "ranks", "tokens"}
            continue
        tree.value = {"data": {"corpus": "wiki-en"}, "rows": {"a": {"patcher": "stride"}}, **tree.value}
        assert suite_from_tree(tree, "part", (), ()).rows


def test_every_page_has_its_place_on_the_site() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)

    def leaves(value: object) -> set[str]:
        if isinstance(value, str):
            return {value}
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return set().union(*map(leaves, inside))

    assert leaves(site["nav"]) == {str(page.relative_to(ROOT / "docs")) for page in PAGES}
    with contextlib.suppress(KeyError):
        assert site["theme"]["font"] is False, "nothing is fetched"
