"""Installed packages made up, for the tests of entry points."""

from pathlib import Path

import patchers

EXAMPLE = Path(__file__).parent / "example_plugin"
"""A package that registers a patcher and a task."""


def distribution(folder: Path, name: str, entry_points: str, code: str, group: str = patchers.GROUP) -> None:
    """What an installer leaves behind for a package of one module."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry_points}\n")
    (folder / f"{name}.py").write_text(code)
