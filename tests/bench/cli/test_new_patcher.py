"""`patchbench new-patcher`: what it writes is sound, its test passes, and nothing is overwritten."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.main import main

ROOT = Path(__file__).resolve().parents[3]


def test_the_files_that_are_written_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "of" / "mine"
    assert main(["new-patcher", "my-words", "--folder", str(folder)]) == 0
    plugin, test = folder / "my_words.py", folder / "test_my_words.py"
    assert sorted(folder.iterdir()) == [plugin, test]
    assert capsys.readouterr().out.splitlines()[:2] == [str(plugin), str(test)]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", test.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout

    assert main(["check", "my-words", "--plugin", str(plugin)]) == 0
    assert "sound: all" in capsys.readouterr().out
    assert main(["segment", "-p", "my-words:after=a", "--plugin", str(plugin), "banana"]) == 0
    assert "│ba│na│na" in capsys.readouterr().out


def test_it_is_about_ten_lines_of_code(tmp_path: Path) -> None:
    main(["new-patcher", "short", "--folder", str(tmp_path)])
    tree = ast.parse((tmp_path / "short.py").read_text())
    documentation = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, node.end_lineno + 1 if node.end_lineno else 0)
    }
    lines = (tmp_path / "short.py").read_text().splitlines()
    code = [line for number, line in enumerate(lines, 1) if line.strip() and number not in documentation]
    assert len(code) <= 11
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("there", ["taken.py", "test_taken.py"])
def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str) -> None:
    (tmp_path / there).write_text("mine")
    assert main(["new-patcher", "taken", "--folder", str(tmp_path)]) == 2
    assert f"{tmp_path / there} is there already; choose another name" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My Words", "'My Words' is no name for a patcher: wanted lower-case letters and digits, as in my-words"),
        ("../up", "'../up' is no name"),
        ("1st", "'1st' is no name"),
        ("stride", "there is a patcher 'stride' already"),
        ("numpy", "'numpy' would hide a Python name or module"),
        ("patchers", "'patchers' would hide"),
        ("string", "'string' would hide"),
        ("none", "there is a patcher 'none' already"),
        ("patcher", "'patcher' would hide"),
    ],
)
def test_names_that_would_not_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, expected: str
) -> None:
    assert main(["new-patcher", name, "--folder", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["new-patcher", "fresh", "--folder", str(tmp_path / "file")]) == 2
    assert "cannot write to" in capsys.readouterr().err
