"""Writes a new plug-in patcher and its test for `patchbench new-patcher NAME`."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

import patchers
from patchers.errors import BenchError

_PATCHER = '''\
"""The patcher `{name}`. Put your own rule into `segment`, then:

    patchbench check {name} --plugin {file}
    patchbench segment -p {name} --plugin {file} "a text to look at"
    patchbench run quick --plugin {file} rows.mine.patcher={name}
"""

import numpy as np

from patchers import Patcher, register


@register("{name}")
class {cls}(Patcher):
    """A patch ends with each of the bytes `after`."""

    after: str = " ,.\\n"  # an option: in a suite `patcher: {{name: {name}, after: " "}}`

    def segment(self, data: bytes) -> np.ndarray:
        ends = np.isin(np.frombuffer(data, dtype=np.uint8), list(self.after.encode()))
        starts = np.ones(len(data), dtype=bool)  # a flag for each byte: does a patch start here? Byte 0 always does.
        starts[1:] = ends[:-1]  # causal: whether byte t starts a patch is decided by the bytes before it
        return starts
'''

_TEST = '''\
"""Tests of the patcher `{name}`: `python -m pytest {test}`."""

from pathlib import Path

import patchers
from patchers.audit import audit

patchers.load_plugin(Path(__file__).with_name("{file}"))


def test_where_it_cuts() -> None:
    starts = patchers.create("{name}").segment(b"one, two")
    assert starts.nonzero()[0].tolist() == [0, 4, 5]


def test_the_contract_holds() -> None:
    findings = audit(patchers.create("{name}"), [b"Some text of your kind, and a second sentence.\\nAnother line."])
    assert [finding for finding in findings if not finding.passed] == []
'''


def write_patcher(name: str, folder: Path) -> tuple[Path, Path]:
    """Write the plug-in and its test into `folder`; their paths. Raises BenchError rather than overwrite."""
    module, cls = _names(name)
    plugin, test = folder / f"{module}.py", folder / f"test_{module}.py"
    for path in (plugin, test):
        if path.exists():
            raise BenchError(f"{path} is there already; choose another name, or another folder with --folder DIR")
    if name in patchers.names():
        raise BenchError(f"there is a patcher '{name}' already; choose another name")
    if cls in ("Patcher", *keyword.kwlist) or module in ("patchers", "models", "bench") or _is_module(module):
        raise BenchError(f"'{name}' would hide a Python name or module of the same name; choose another name")
    values = {"name": name, "cls": cls, "file": plugin.name, "test": test.name}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in ((plugin, _PATCHER), (test, _TEST)):
            with path.open("x", encoding="utf-8") as file:
                file.write(template.format(**values))
    except OSError as error:
        raise BenchError(f"cannot write to {folder}: {error.strerror}; choose another with --folder DIR") from error
    return plugin, test


def _names(name: str) -> tuple[str, str]:
    """The module and the class for a patcher of that name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", name):
        raise BenchError(f"{name!r} is no name for a patcher: wanted lower-case letters and digits, as in my-words")
    parts = re.split("[_-]", name)
    return "_".join(parts), "".join(part.capitalize() for part in parts)


def _is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
