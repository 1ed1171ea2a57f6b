"""Claims as they stand in YAML: who said what, at which scale, and what of our records would show it.

    claims:
      C1:
        claim: Entropy patches take fewer bits per byte than strides of the same mean size.
        source: {paper: "Pagnoni et al. 2024, Byte Latent Transformer", arxiv: "2412.09871", where: figure 6}
        test: {name: difference, suite: study, row: entropy@8000000, reference: stride@8000000, at_most: -0.01}

`test` may be a list, of which all must hold. A margin (`at_least`, `at_most`, `margin`) is fixed before the records are
looked at. `needs` is what must be shown before there is a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from bench.claims import predicates
from bench.claims.predicates import Predicate
from bench.suites.catalog import find
from bench.suites.config import load_plugins
from bench.system.yaml import Place, Tree, dataclass_from_mapping, parse_file
from patchers.errors import BenchError

NO_FIGURE = "no figure is given"


def _is_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,19}", text):
        raise BenchError(f"{text!r} cannot name a claim; use up to 20 letters, digits and . _ -")
    return text


def _is_said(text: str) -> str:
    if not text.strip():
        raise BenchError("nothing stands here; say it in a sentence")
    return " ".join(text.split())


Said = Annotated[str, AfterValidator(_is_said)]
ClaimId = Annotated[str, AfterValidator(_is_id)]


@dataclass(frozen=True)
class Origin:
    """Who claims it."""

    paper: Said
    where: Said
    """The section, table or figure."""
    arxiv: str | None = None
    figure: Said = NO_FIGURE
    """Its own number."""
    scale: Said | None = None
    """What that was measured at."""


@dataclass(frozen=True)
class ClaimConfig:
    """A claim as it stands in the YAML."""

    claim: Said
    source: Origin
    test: dict[str, Any] | Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    needs: dict[str, Any] | None = None
    """A predicate that must be shown to hold before anything is said: that the rows are above chance, for instance."""
    reading: Said | None = None
    """What the test makes of the sentence, where that is not plain."""


@dataclass(frozen=True)
class ClaimsConfig:
    """A file of claims as it stands in the YAML."""

    claims: Annotated[dict[ClaimId, dict[str, Any]], Field(min_length=1)]
    about: Said | None = None
    plugins: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    """Suites with rows of several seeds, which say what trainings differ by where a claim's rows have one seed."""


@dataclass(frozen=True)
class Claim:
    """A claim, checked."""

    id: str
    claim: str
    source: Origin
    tests: tuple[Predicate, ...]
    needs: Predicate | None
    reading: str | None
    place: Place
    """Where it stands, for complaints."""


@dataclass(frozen=True)
class Claims:
    """A file of claims, checked."""

    name: str
    about: str
    claims: tuple[Claim, ...]
    spread: tuple[str, ...]


def shipped_claims() -> dict[str, Path]:
    """The files of claims that come with patchbench, by name."""
    folder = Path(str(resources.files("bench") / "configs" / "claims"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_claims(name: str, plugins: Sequence[str] = ()) -> Claims:
    """Read claims by path or by the name of a file that ships. Raises BenchError for all that a user can mend."""
    path = find("claims", name, shipped_claims())
    return claims_from_tree(parse_file(path, f"claims {name}"), path.stem, plugins)


def claims_from_tree(tree: Tree, stem: str, plugins: Sequence[str] = ()) -> Claims:
    if not isinstance(tree.value, dict):
        raise tree.at().error("claims need keys; the least there can be is `claims:`")
    config = dataclass_from_mapping(ClaimsConfig, tree.value, tree.at())
    load_plugins(config.plugins, tree, plugins)
    claims = tuple(_claim(name, given, tree.at("claims", name)) for name, given in config.claims.items())
    return Claims(stem, config.about or "", claims, config.spread)


def _claim(name: str, given: Any, place: Place) -> Claim:
    config = dataclass_from_mapping(ClaimConfig, given, place)
    single = isinstance(config.test, dict)
    tests = [config.test] if isinstance(config.test, dict) else list(config.test)
    places = [place / "test" if single else place / "test" / index for index in range(len(tests))]
    read = tuple(_predicate(options, here) for options, here in zip(tests, places, strict=True))
    needs = None if config.needs is None else _predicate(config.needs, place / "needs")
    return Claim(name, config.claim, config.source, read, needs, config.reading, place)


def _predicate(given: dict[str, Any], place: Place) -> Predicate:
    options = dict(given)
    name = options.pop("name", None)
    if not isinstance(name, str):
        known = ", ".join(predicates.names())
        raise (place / "name").error(f"wanted a predicate's name, got {name!r}; there are: {known}")
    try:
        cls = predicates.get(name)
    except BenchError as error:
        raise (place / "name").error(str(error)) from error
    return dataclass_from_mapping(cls, options, place)
