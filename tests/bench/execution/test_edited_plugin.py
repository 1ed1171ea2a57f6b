"""An edited plug-in is another run: nothing stale is shown as if it were of the code as it is now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tiny_suite import write_suite

ROOT = Path(__file__).resolve().parents[3]
HALVES = '''
"""A start every so many bytes."""
import numpy as np
from patchers import Patcher, register
{imports}

@register("halves")
class Halves(Patcher):
    def segment(self, data):
        starts = np.zeros(len(data), dtype=bool)
        starts[::{every}] = True  # {comment}
        return starts
'''


def patchbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user edits between two of them."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "bench.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def sizes(folder: Path) -> dict[str, float]:
    """Run id -> mean patch, of all records."""
    records = [json.loads(path.read_text()) for path in sorted((folder / "results").glob("*/runs/*.json"))]
    return {record["run_id"]: record["patcher"]["bytes_per_patch"]["test"] for record in records}


def test_an_edited_plug_in_runs_anew_and_both_results_are_kept(tmp_path: Path) -> None:
    plugin = tmp_path / "halves.py"
    plugin.write_text(HALVES.format(every=8, imports="", comment="as it was"))
    write_suite(tmp_path, {"mine": {"patcher": "halves"}}, plugins=["halves.py"])
    first = patchbench(tmp_path, "run", "tiny.yaml")
    assert first.returncode == 0, first.stderr
    (before,) = sizes(tmp_path).values()
    assert 7 < before <= 8

    plugin.write_text(HALVES.format(every=8, imports="", comment="the same in other words"))
    again = patchbench(tmp_path, "run", "tiny.yaml")
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout + again.stderr, "a comment is no other code"

    plugin.write_text(HALVES.format(every=3, imports="", comment="as it was"))
    table = patchbench(tmp_path, "table", "tiny.yaml")
    assert "The plug-in of mine was edited since: the numbers shown are of its other code" in table.stdout
    status = patchbench(tmp_path, "status", "tiny.yaml")
    assert "its plug-in was edited: results of its other code are kept" in status.stdout
    edited = patchbench(tmp_path, "run", "tiny.yaml")
    assert edited.returncode == 0, edited.stderr
    assert "the plug-in of row mine was edited" in edited.stdout + edited.stderr
    found = sizes(tmp_path)
    assert len(found) == 2, "both are kept"
    assert sorted(round(size) for size in found.values()) == [3, 8]
    after = patchbench(tmp_path, "table", "tiny.yaml", "--format", "csv")
    assert "edited" not in after.stdout
    assert "1 record of another configuration is left out" in patchbench(tmp_path, "table", "tiny.yaml").stdout


def test_what_a_plug_in_imports_from_its_folder_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "sizes.py").write_text("EVERY = 8\n")
    text = HALVES.format(every="sizes.EVERY", imports="import sizes", comment="")
    (tmp_path / "halves.py").write_text(text)
    write_suite(tmp_path, {"mine": {"patcher": "halves"}}, plugins=["halves.py"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}

    def code() -> str:
        script = (
            "from patchers import load_plugin, get; from patchers.identity import code_identity; "
            "load_plugin('halves.py'); print(code_identity(get('halves')))"
        )
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    one = code()
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    (tmp_path / "sizes.py").write_text("# every so many\nEVERY = 8\n")
    assert code() == one
    (tmp_path / "sizes.py").write_text("EVERY = 3\n")
    assert code() != one
