"""Collects what `patchbench list` prints."""

import dataclasses
from typing import Any

import patchers
from bench.data.sources import CORPORA
from bench.suites.catalog import purpose, shipped_suites


def list_patchers() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "kind": cls.kind,
            "causal": cls.causal,
            "boundaries": "causal" if cls.causal else "priced",
            "knob": cls.knob,
            "options": {f.name: _default(f) for f in dataclasses.fields(cls) if not f.name.startswith("_")},
            "source": cls.source,
        }
        for name, cls in ((name, patchers.get(name)) for name in patchers.names())
    ]


def list_models() -> list[dict[str, Any]]:
    from bench.evaluation.pretrained.config import PretrainedConfig
    from bench.suites.config import MODELS

    return [_described(name, cls) for name, cls in (*MODELS.items(), ("{hf: FOLDER or NAME}", PretrainedConfig))]


def _described(name: str, cls: type[Any], **more: Any) -> dict[str, Any]:
    """The beginning of a class's docstring, and its fields as options."""
    what = (cls.__doc__ or "").strip().splitlines()[0]
    return {"name": name, **more, "what": what, "options": {f.name: _default(f) for f in dataclasses.fields(cls)}}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def list_tasks() -> list[dict[str, Any]]:
    from bench.evaluation import tasks

    return [_described(name, tasks.get(name), version=tasks.get(name).version) for name in tasks.names()]


def list_corpora() -> list[dict[str, Any]]:
    return [{"name": name, "what": source.description, "licence": source.licence} for name, source in CORPORA.items()]


def list_suites() -> list[dict[str, Any]]:
    return [{"name": name, "what": purpose(path)} for name, path in shipped_suites().items()]


def list_claims() -> list[dict[str, Any]]:
    from bench.claims.config import load_claims, shipped_claims

    return [{"name": name, "what": load_claims(name).about} for name in shipped_claims()]


def list_predicates() -> list[dict[str, Any]]:
    from bench.claims import predicates

    return [_described(name, predicates.get(name)) for name in predicates.names()]


LISTS = {
    "patchers": list_patchers,
    "models": list_models,
    "tasks": list_tasks,
    "corpora": list_corpora,
    "suites": list_suites,
    "claims": list_claims,
    "predicates": list_predicates,
}
