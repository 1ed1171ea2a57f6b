"""Tasks by name: the built-ins, plug-in files, entry points, and what is said when something is wrong."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import Told, material
from distributions import EXAMPLE, distribution

import patchers
from bench.data.config import Document
from bench.evaluation import tasks
from bench.evaluation.tasks import BitsPerByte, Noise, Speed, Task, registry
from patchers.errors import BenchError

PLUGIN = """
from bench.evaluation.tasks import Material, Metric, Task, TaskResult, register_task

@register_task("mine")
class Mine(Task):
    '''Documents there are.'''

    least: int = 1

    def run(self, model, material):
        rows = [(d.id, 1, 1) for d in material.test if len(d.data) >= self.least]
        return TaskResult({"documents": Metric("documents", rows)})
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers or imports is gone after it."""
    monkeypatch.setattr(registry.TASKS, "classes", dict(registry.TASKS.classes))
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith(("patchbench_", "other_")):
            del sys.modules[name]


def test_the_built_ins() -> None:
    assert {"bpb", "noise", "speed"} <= set(tasks.names())
    for name, cls, version in (("bpb", BitsPerByte, 1), ("noise", Noise, 2), ("speed", Speed, 1)):
        assert tasks.get(name) is cls
        assert (cls.name, cls.version) == (name, version)
    for name in tasks.names():
        task = tasks.get(name)
        assert task().identity() == task.version, "with its defaults a run is what it was before there were options"
        assert (task.__doc__ or "").strip()
        assert dataclasses.is_dataclass(task)


def test_what_a_task_is_called_in_a_run() -> None:
    assert Noise(levels=(0.1,)).identity() == {"version": 2, "options": {"levels": (0.1,)}}
    assert BitsPerByte().as_config() == "bpb"
    assert Speed(repeats=5).as_config()["repeats"] == 5
    assert Speed(repeats=5).identity() == {"version": 1, "options": {"repeats": 5}}


def test_a_file_adds_a_task(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    patchers.load_plugin(tmp_path / "mine.py")
    cls = tasks.get("mine")
    mine = cls(least=4)  # type: ignore[call-arg]
    assert mine.options() == {"least": 4}
    with pytest.raises(dataclasses.FrozenInstanceError):
        mine.least = 5  # type: ignore[attr-defined]
    out = mine.run(Told(), material([Document("a", b"long"), Document("b", b"no")]))
    assert out.metrics["documents"].documents == [("a", 1, 1)]


def test_names_that_are_taken_or_unknown(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace('"mine"', '"noise"'))
    with pytest.raises(BenchError, match=r"task 'noise' is defined twice, in .*noise\.py and in .*mine\.py: rename"):
        patchers.load_plugin(tmp_path / "mine.py")
    with pytest.raises(BenchError, match="unknown task 'nose', did you mean 'noise'\\?; there are: bpb, "):
        tasks.get("nose")


def test_an_option_needs_a_default(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.replace("least: int = 1", "least: int"))
    with pytest.raises(BenchError, match=r"task 'mine' in .*mine\.py: give least a default"):
        patchers.load_plugin(tmp_path / "mine.py")


def test_the_example_package_brings_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "source")
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert "example_worst" in tasks.names()
    assert "patchbench_example" not in sys.modules  # a list imports nothing
    worst: Task = tasks.get("example_worst")()
    assert type(worst).__module__ == "patchbench_example.worst"
    texts = [Document(str(n), b"x" * n) for n in range(1, 21)]
    assert len(worst.run(Told(), material(texts)).metrics["bpb"].documents) == 2


def test_packages_that_are_broken_or_promise_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = registry.GROUP
    distribution(tmp_path, "other_broken", "broken = other_broken:X", "import a_module_that_is_not_there", group)
    distribution(tmp_path, "other_wrong", "wrong = other_wrong:Mine", PLUGIN, group)
    distribution(tmp_path, "other_noise", "noise = other_noise:Mine", PLUGIN, group)
    monkeypatch.syspath_prepend(tmp_path)
    assert {"broken", "wrong", "noise"} <= set(tasks.names())
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        tasks.get("broken")
    with pytest.raises(BenchError, match="the entry point 'wrong' loads other_wrong:Mine, which registers no such"):
        tasks.get("wrong")
    with pytest.raises(BenchError, match=r"'noise' is defined twice, in bench\.evaluation\.tasks\.noise and in other"):
        tasks.get("noise")
