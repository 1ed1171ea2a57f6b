"""The notebook of docs/ runs as it stands, in a kernel as people have it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    before = os.times()
    client.execute()
    after = os.times()
    notebook.metadata["cpu"] = sum(after[2:4]) - sum(before[2:4])
    notebook.metadata["folder"] = str(folder)
    return notebook


def outputs(notebook: Any, begins: str) -> list[Any]:
    """What a cell shows, the one whose source has these words."""
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code" and begins in cell.source)
    return list(cell.outputs)


def shown(notebook: Any, begins: str, kind: str = "text/html") -> str:
    found = [output["data"][kind] for output in outputs(notebook, begins) if kind in output.get("data", {})]
    assert found, outputs(notebook, begins)
    return str(found[-1])


def test_it_shows_cuts_a_table_a_frame_and_a_plot(executed: Any) -> None:
    assert "<span" in shown(executed, "bench.cut(Vowels")
    assert "sound: all" in shown(executed, "bench.check")
    assert "<span" in shown(executed, "tokenizer.save")
    table = shown(executed, "bench.run(suite")
    assert all(row in table for row in ("vowels", "tokenizer", "texts.parquet"))
    frame = shown(executed, "results.frame()")
    assert "class=\"dataframe\"" in frame
    assert frame.count("<tr>") == 2, "a line a record, below the head"
    assert "reference" in shown(executed, "results.compare")
    assert shown(executed, "results.plot", "image/png")


def test_runs_were_told_of_while_they_went_on(executed: Any) -> None:
    """By a table that was replaced; what is left of it says how each run ended."""
    pages = [o["data"]["text/html"] for o in outputs(executed, "bench.run(suite") if "text/html" in o.get("data", {})]
    assert any(page.count("done: bpb") == 2 for page in pages)
    assert not [o for o in outputs(executed, "bench.run(suite") if o.output_type == "stream"], "nothing beside it"


def test_it_is_kept_as_it_was_executed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code[1:]), "all but the imports show something"
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert str(Path.home()) not in text
    assert "/tmp" not in text


def test_it_is_quick(executed: Any) -> None:
    """Two minutes of two cores, by the time that its processes were given."""
    assert executed.metadata["cpu"] < 120
