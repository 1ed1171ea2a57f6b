"""An `LM` adapter for EleutherAI's lm-evaluation-harness (0.4.13).

Everything is exact over bytes. What comes after a context is scored jointly with it, whatever the cut, and nothing is
cut off a context: it is read as long documents are read everywhere here (`bench.evaluation.likelihood`).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import yaml
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager

from bench.evaluation.byte_model import CutModel
from bench.evaluation.generation import Wish, continuations
from bench.evaluation.likelihood import likelihoods, total
from bench.records.statistics import Bootstrap, Estimate, Scores
from models.decoding.generate import Limits
from models.decoding.sampling import Sampling
from patchers.errors import BenchError
from patchers.named import nearest

WRITTEN_SIDE_BY_SIDE = 64
FEW_SHOT_SEED = 1234  # as `simple_evaluate` has it
WISHES = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}


class PatchbenchLM(LM):
    """What `lm_eval.simple_evaluate` takes as its model."""

    def __init__(self, model: CutModel) -> None:
        super().__init__()
        self.model = model

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Nats (negative) of each request's continuation given its context, and whether greedy writing gives it."""
        pairs = [(as_bytes(context), as_bytes(text)) for context, text in (request.args for request in requests)]
        found = likelihoods(self.model, pairs)
        if any(one.greedy is None for one in found):
            check_choices(requests)
        return [(one.log, bool(one.greedy)) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Nats (negative) of each request's text, from BOS; no end of text is predicted."""
        texts = [as_bytes(request.args[0]) for request in requests]
        return [-total(nats) for nats in self.model.nats(texts)]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What each request's context goes on with; `max_gen_toks` counts bytes, for every model alike.

        What is drawn at a temperature depends on the request's place among all requests alone.
        """
        out: list[str] = []
        for at in range(0, len(requests), WRITTEN_SIDE_BY_SIDE):
            out += self._written(requests[at : at + WRITTEN_SIDE_BY_SIDE], at)
        return out

    def _written(self, requests: Sequence[Any], seed: int) -> list[str]:
        wishes = [wish_of(request.args[1], seed) for request in requests]
        if any(wish != wishes[0] for wish in wishes):
            return [text for i, request in enumerate(requests) for text in self._written([request], seed + i)]
        prompts = [as_bytes(request.args[0]) for request in requests]
        written = continuations(self.model.module, self.model.patcher, prompts, wishes[0])
        return [text.decode(errors="replace") for text in written]


def check_choices(requests: Sequence[Any]) -> None:
    """Choices are ranked by likelihood; a task without choices asks whether its text is what the model would write."""
    asked = Counter((request.task_name, request.doc_id) for request in requests)
    for (task, _), count in asked.items():
        if count == 1:
            raise BenchError(
                f"{task} asks whether a text is what the model would write, and this model cannot write: it is told "
                "boundaries that it does not pay for; take one that is causal, or priced"
            )


def as_bytes(text: str) -> bytes:
    """A text of lm-eval's; bytes that are no UTF-8 may be in it as Python writes them (`surrogateescape`)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BenchError(
            f"a text has half a surrogate pair, {text[error.start]!r}, which is no character: mend the data of the task"
        ) from error


def wish_of(arguments: Mapping[str, Any], seed: int) -> Wish:
    """lm-eval's generation arguments as ours."""
    given = normalize_gen_kwargs(dict(arguments))
    if unknown := sorted(given.keys() - WISHES):
        raise BenchError(
            f"cannot write with {unknown[0]}: {given[unknown[0]]!r}; known are {', '.join(sorted(WISHES))}"
        )
    until = tuple(as_bytes(text) for text in given["until"])
    sampling = Sampling(given.get("temperature", 0.0), given.get("top_k"), given.get("top_p"))
    return Wish(Limits(given["max_gen_toks"], until), sampling, seed)


@dataclass(frozen=True)
class TaskScore:
    """What lm-eval says of one task, and how sure it is."""

    task: str
    items: int
    metrics: dict[str, Estimate]
    """Intervals are over items; NaN for a metric that is no mean of items."""

    error: str | None = None
    """Why there is no number."""

    def as_json(self) -> dict[str, Any]:
        if self.error is not None:
            return {"error": self.error}
        return {
            "items": self.items,
            "metrics": {
                name: {"value": e.value, "interval": None if math.isnan(e.low) else [e.low, e.high]}
                for name, e in self.metrics.items()
            },
        }


def find_tasks(names: Sequence[str], folder: Path | None) -> Any:
    """A TaskManager that knows these tasks. Those that come with lm-eval are looked through only if one is asked for.

    Raises BenchError for a name that nobody knows.
    """
    if not names:
        raise BenchError("no task is named; give one or more, as --tasks arc_easy,piqa")
    if folder is not None and not folder.is_dir():
        raise BenchError(f"--include-path {folder} is no folder; give one that holds lm-eval tasks (.yaml)")
    path = None if folder is None else str(folder)
    manager = TaskManager(include_path=path, include_defaults=False)
    if set(names) <= set(manager.all_tasks):
        return manager
    own = manager.all_tasks
    manager = TaskManager(include_path=path, include_defaults=True)
    for name in names:
        if name not in manager.all_tasks:
            where = f"{folder} ({', '.join(own) or 'nothing'})" if folder is not None else "no --include-path"
            raise BenchError(f"no task {name!r}{nearest(name, manager.all_tasks)} in lm-eval, nor in {where}")
    return manager


def evaluate(
    model: CutModel,
    names: Sequence[str],
    folder: Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
) -> list[TaskScore]:
    """Each task's metrics; a task that fails for a reason in its data says so, and the others are kept."""
    if limit is not None and limit < 1:
        raise BenchError(f"--limit must be at least 1 item, got {limit}")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = find_tasks(names, folder)
    adapter, out = PatchbenchLM(model), []
    for name in names:
        try:
            out += _scores(adapter, name, manager, limit, shots)
        except (BenchError, OSError, ValueError, KeyError, yaml.YAMLError) as error:
            out.append(TaskScore(name, 0, {}, said_of(error)))
    return out


def said_of(error: Exception) -> str:
    """What was wrong, on one line; data that cannot be had may be there as a file."""
    what = " ".join(str(error).split())
    if isinstance(error, BenchError):
        return what
    way_out = (
        "; a task of a file that you have: `patchbench lm-eval-tasks DIR FILE`" if isinstance(error, OSError) else ""
    )
    return f"{type(error).__name__}: {what}{way_out}"


def _scores(adapter: PatchbenchLM, name: str, manager: Any, limit: int | None, shots: int | None) -> list[TaskScore]:
    """Those of one task, or of each task of a group."""
    loaded = manager.load([name])
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (shots is not None and own != 0):  # a task that says 0 means it
            task.set_config(key="num_fewshot", value=shots or 0)
        task.set_fewshot_seed(seed=FEW_SHOT_SEED)
    # not `simple_evaluate`, which runs programs to describe the machine, for seconds each time
    found = lm_eval.evaluate(adapter, task_dict=loaded, limit=limit, bootstrap_iters=0)
    assert found is not None, "this is the only process"
    out = []
    for task, results in found["results"].items():
        samples = found["samples"].get(task)
        if samples is None:  # a group's own line, made of its tasks'
            continue
        if found["configs"][task]["output_type"] == "multiple_choice":
            check_answers(task, samples)
        metrics = {}
        for key, value in results.items():
            metric, _, chosen = key.partition(",")
            if chosen and not metric.endswith("_stderr") and isinstance(value, int | float):
                per_item = [s[metric] for s in samples if s["filter"] == chosen and metric in s]
                metrics[metric if chosen == "none" else key] = with_interval(float(value), per_item)
        out.append(TaskScore(task, len({s["doc_id"] for s in samples}), metrics))
    return out


def check_answers(task: str, samples: Sequence[Mapping[str, Any]]) -> None:
    """lm-eval would count an item without a right answer as answered wrongly."""
    for sample in samples:
        right, choices = sample["target"], len(sample["arguments"])
        if isinstance(right, int) and not 0 <= right < choices:
            raise BenchError(
                f"item {sample['doc_id']} has {choices} choices and says that number {right} is right: "
                "mend the task's data"
            )


LINKS: tuple[Callable[[float], float], ...] = (lambda x: x, lambda x: -x / math.log(2), lambda x: math.exp(-x))
"""How lm-eval makes a metric of the mean of its items, or of a ratio of their sums."""


def with_interval(value: float, per_item: Sequence[Any]) -> Estimate:
    """The value with its interval over items, if it is a function of their mean (or of a ratio of their sums)."""
    none = Estimate(value, math.nan, math.nan)
    try:
        pairs = np.array([x if isinstance(x, tuple) else (x, 1.0) for x in per_item], float)
    except (TypeError, ValueError):
        return none
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) < 2 or pairs[:, 1].sum() == 0:
        return none
    found = Bootstrap({"": Scores((0,), pairs[None, :, 0], pairs[None, :, 1])}).estimate("")
    for link in LINKS:
        if math.isclose(link(found.value), value, rel_tol=1e-6, abs_tol=1e-12):
            low, high = sorted((link(found.low), link(found.high)))
            return Estimate(value, low, high)
    return none
