"""Writes task files for lm-evaluation-harness: a YAML and a Parquet file each.

Parquet keeps a text as it is. JSON lines would not: what looks like a date is read as one. And the YAML names columns
and no templates: `"{{text}}"` would make a list of a document such as `[1, 2, 3]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.data.sources import opened
from bench.evaluation.multiple_choice import ChoiceSource, Item, json_rows
from patchers.errors import BenchError

VERSION = 1


@dataclass(frozen=True)
class Exported:
    """What lm-eval needs to know of a task besides its name."""

    rows: list[dict[str, Any]]
    config: dict[str, Any]
    tag: str | None = None
    """A name for all tasks of a kind, which lm-eval takes as well."""


def multiple_choice(items: Sequence[Item]) -> Exported:
    rows = [{"context": i.context, "choices": list(i.choices), "answer": i.answer} for i in items]
    for row, item in zip(rows, items, strict=True):
        if not 0 <= item.answer < len(item.choices):
            raise BenchError(f"item {item.id} has {len(item.choices)} choices and says that {row['answer']} is right")
    return Exported(
        rows,
        {
            "output_type": "multiple_choice",
            "doc_to_text": "context",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "target_delimiter": " ",
            "metric_list": [_metric("acc"), _metric("acc_norm"), _metric("acc_bytes")],
        },
    )


def last_words(items: Sequence[tuple[str, str]]) -> Exported:
    """Of texts and what each has to go on with, as LAMBADA has them. lm-eval puts nothing between the two, so the space
    is the continuation's."""
    rows = [{"context": context, "continuation": f" {continuation}"} for context, continuation in items]
    return Exported(
        rows,
        {
            "output_type": "loglikelihood",
            "doc_to_text": "context",
            "doc_to_target": "continuation",
            "metric_list": [_metric("acc"), _metric("perplexity", "perplexity", better=False)],
        },
    )


def documents(texts: Sequence[str]) -> Exported:
    return Exported(
        [{"text": text} for text in texts],
        {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "text",
            "metric_list": [_metric("bits_per_byte", "bits_per_byte", better=False)],
        },
    )


def questions(items: Sequence[tuple[str, str]], max_bytes: int = 64) -> Exported:
    """Of prompts and the one answer to each, written up to the end of its line; lm-eval's `max_gen_toks` counts bytes
    here (`bench.lm_eval.adapter`)."""
    return Exported(
        [{"prompt": prompt, "answer": answer} for prompt, answer in items],
        {
            "output_type": "generate_until",
            "doc_to_text": "prompt",
            "doc_to_target": "answer",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": max_bytes, "do_sample": False},
            "filter_list": [
                {"name": "stripped", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
            ],
            "metric_list": [_metric("exact_match")],
        },
    )


def _metric(name: str, aggregation: str = "mean", better: bool = True) -> dict[str, Any]:
    return {"metric": name, "aggregation": aggregation, "higher_is_better": better}


def write_task(folder: Path, name: str, task: Exported) -> Path:
    """Write NAME.yaml and NAME.parquet; the YAML. Raises BenchError for a task without items."""
    if not task.rows:
        raise BenchError(f"task {name} would have no items; give a source that has some")
    import pyarrow
    import pyarrow.parquet

    data = (folder / f"{name}.parquet").resolve()
    config = {
        "task": name,
        **({"tag": task.tag} if task.tag else {}),
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        **task.config,
        "metadata": {"version": VERSION},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(task.rows), data)
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot write into {folder}: {error.strerror or error}; choose another folder") from error
    except UnicodeEncodeError as error:
        raise BenchError(f"task {name}: a text is no valid Unicode ({error.reason}); mend its source") from error
    return path


# --- files in known forms


def task_of_file(path: Path) -> tuple[str, Exported]:
    """A task's name and content, from a file whose form is told by its lines.

    JSON lines with `query`, `choices` and `gold`, with `context` and `continuation`, with `ctx`, `endings` and `label`,
    or with `text`; the six lines an item of HellaSwag's release; anything else is one document.
    """
    name = re.sub(r"\W+", "_", path.name.split(".")[0]).lower()
    with opened(str(path)) as file:
        lines = file.read().split(b"\n")
    if not path.name.split(".", 1)[-1].startswith(("jsonl", "ndjson")):
        if len(lines) > 7 and re.fullmatch(rb"\d", lines[1]) and re.fullmatch(rb"\d", lines[7]):
            return name, multiple_choice(ChoiceSource(str(path)).read(limit=10**9))
        return name, documents([_text(b"\n".join(lines), str(path))])
    rows = list(_json_rows(lines, path))
    for keys, read in FORMS.items():
        if rows and set(keys) <= rows[0].keys():
            try:
                return name, read(rows, path)
            except KeyError as error:
                raise BenchError(f"{path}: an item has no {error}, others have; mend it") from error
    wanted = "; ".join(", ".join(keys) for keys in FORMS)
    raise BenchError(f"{path}: items have {', '.join(rows[0]) if rows else 'nothing'}; wanted one of these: {wanted}")


def _json_rows(lines: Sequence[bytes], path: Path) -> Iterator[dict[str, Any]]:
    for where, row in json_rows(lines, path):
        if not isinstance(row, dict):
            raise BenchError(f"{where}: wanted an object, got {str(row)[:40]}")
        yield row


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BenchError(
            f"{where} is not UTF-8 ({error.reason} at byte {error.start}), and lm-eval has texts"
        ) from error


def _questions(rows: Sequence[Mapping[str, Any]], path: Path) -> Exported:
    """ARC's and PIQA's items are asked as lm-eval asks them: the question, and `Answer:` on a line of its own."""
    items = []
    for number, row in enumerate(rows, 1):
        context, choices, gold = row["query"], row["choices"], row["gold"]
        if context.startswith("Question:"):
            context = context.removesuffix("\n") + "\nAnswer:"
        if not isinstance(gold, int) or not 0 <= gold < len(choices):
            raise BenchError(
                f"{path}, line {number}: no choice is right: gold is {gold!r}, wanted 0 to {len(choices) - 1}"
            )
        items.append(Item(f"{number}", context, tuple(choices), gold))
    return multiple_choice(items)


FORMS: dict[tuple[str, ...], Callable[[Sequence[Mapping[str, Any]], Path], Exported]] = {
    ("query", "choices", "gold"): _questions,
    ("context", "continuation"): lambda rows, _: last_words([(r["context"], r["continuation"]) for r in rows]),
    ("ctx", "endings", "label"): lambda _, path: multiple_choice(ChoiceSource(str(path)).read(limit=10**9)),
    ("text",): lambda rows, _: documents([r["text"] for r in rows]),
}
