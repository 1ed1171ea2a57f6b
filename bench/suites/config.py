"""Suites: strict YAML read into frozen dataclasses.

Every section is a dataclass whose fields are the keys of the YAML; the models' sections are the dataclasses
of `models`. What does not fit is a BenchError with the file, the line (or the override), the dotted path, and
the nearest name where a name is not known.
"""

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from bench.data.config import DataConfig
from bench.evaluation.pretrained.config import PretrainedConfig, PretrainedFiles, locate
from bench.evaluation.run_tasks import read_tasks
from bench.evaluation.tasks import Task
from bench.suites.catalog import find_suite, folder_of
from bench.suites.launch_config import LaunchConfig
from bench.suites.sweep import applies, apply, combinations, description, swept_label
from bench.system.files import located
from bench.system.precision import Dtype, fast_dtype, has_gpu
from bench.system.yaml import Place, Tree, dataclass_from_mapping, parse_file
from models.byte_lm import ByteLMConfig
from models.harness import HarnessConfig, Price, boundary_inputs_of
from models.token_lm import TokenLMConfig
from patchers import Patcher, create, get, load_plugin
from patchers.errors import BenchError
from patchers.identity import code_identity
from patchers.named import nearest, unknown

ModelKind = Literal["harness", "token_lm", "byte_lm"]
Sizes = HarnessConfig | TokenLMConfig | ByteLMConfig
Match = Literal["placement", "train_flops", "inference_flops", "bytes"]
Compile = Literal["auto", "cuda_graphs"] | bool

MODELS: dict[ModelKind, type[Sizes]] = {
    "harness": HarnessConfig,
    "token_lm": TokenLMConfig,
    "byte_lm": ByteLMConfig,
}

SECTIONS: dict[ModelKind, str] = {"harness": "model", "token_lm": "token_lm", "byte_lm": "byte_lm"}
"""Where a suite has the sizes of a model, for all rows of its kind."""

HEADS = {"local_width": "local_heads", "latent_width": "latent_heads", "width": "heads"}
"""Which attention heads share a width."""

DEFAULT_PRICE: Price = "start"
"""Of the two bounds that price boundaries, the one that came out tighter."""

BY_FLOPS: tuple[Match, ...] = ("train_flops", "inference_flops")
"""The ways to match that take FLOPs from a row."""

AtLeast1 = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PatchSize = Annotated[float, Field(ge=1)] | str | None
"""Bytes a patch to calibrate to: a number, or the label of a row whose realised size it is."""


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; the same for every row unless the row says otherwise."""

    bytes: AtLeast1 = 3_276_800  # read in all, again from the start where the corpus is smaller
    batch_bytes: AtLeast1 = 4096  # in a step
    window: Annotated[int, Field(ge=2)] = 1024  # bytes of context, in training and in scoring
    lr: Positive = 9e-3  # of matrices with 64 inputs; wider ones get less (`bench.training.loop.make_optimizer`)
    lookup_lr: Positive = 8.0  # times lr, for embeddings and hash tables, whose rows are seldom updated
    warmup: Fraction = 0.1  # share of the bytes
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1  # of lr, at the end of the cosine
    weight_decay: Annotated[float, Field(ge=0)] = 0.1  # of matrices alone
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    clip: Positive = 1.0  # norm of the gradient
    # Of activations. What `auto` comes to on this machine stands in a run's name and in its record.
    dtype: Literal["auto", Dtype] = "auto"
    # torch.compile: one graph instead of many operations. What `auto` (yes on a GPU) comes to stands as dtype's does.
    # `cuda_graphs` replays its kernels without launching them one by one, which is what takes time in small models.
    compile: Compile = "auto"
    # Sums on a GPU in one order, so that a run that was killed ends with the same bits; a CPU's always are.
    deterministic: bool | None = field(default=None, metadata={"identity": "when set"})
    log_every: AtLeast1 = 10  # steps
    # Between two checkpoints to go on from; says nothing about what comes out.
    checkpoint_seconds: Positive = field(default=60.0, metadata={"identity": False})

    def __post_init__(self) -> None:
        if self.dtype == "auto":
            object.__setattr__(self, "dtype", fast_dtype())
        if self.compile == "auto":
            object.__setattr__(self, "compile", has_gpu())
        if self.batch_bytes < self.window:
            raise BenchError(
                f"batch_bytes is {self.batch_bytes} and window {self.window}, but a batch must hold a "
                "window: raise batch_bytes or lower window"
            )


@dataclass(frozen=True)
class RowConfig:
    """A row as it stands in the YAML."""

    patcher: dict[str, Any] | None = None  # what cuts: a name, or a name with options; none for a byte_lm
    model: ModelKind = "harness"
    price: Price | None = None  # how boundaries that are not causal are paid for; by default the tighter way
    leaky: bool = False  # leaves them unpaid: for research, marked in every table and never ranked
    calibrate: bool = True  # whether the patcher's knob is set
    bytes_per_patch: PatchSize = None  # by default the suite's
    grow_to: str | None = None  # the row whose FLOPs a byte its local model is grown to (a control's)
    train: dict[str, Any] = field(default_factory=dict)  # what differs from the suite's
    options: dict[str, Any] = field(default_factory=dict)  # sizes that differ from those of the suite's section


@dataclass(frozen=True)
class Row:
    """One line of the table to be: a model, what cuts its text, and how it is trained."""

    label: str
    model: ModelKind
    sizes: Sizes
    train: TrainConfig
    patcher: Patcher | None  # neither fitted nor calibrated yet; None for byte_lm
    price: Price | None  # None where boundaries are free: causal patchers, leaky rows, models over tokens
    leaky: bool
    calibrate: bool  # whether the row has a knob and wants it set
    bytes_per_patch: float | str | None  # to what it is set: a size, or the label of a row; None where it is not
    grow_to: str | None = None  # the label of the row whose FLOPs a byte its local model is grown to
    match_to: float | str | None = None  # whose FLOPs it gets: a number or a row's label; None where they are free
    sweep: Mapping[str, Any] | None = None  # which row at which value (`bench.suites.sweep.description`)

    def patcher_options(self) -> dict[str, Any] | None:
        """What cuts, as a run's identity has it: name and options, a plug-in's code, and a version that was raised."""
        if self.patcher is None:
            return None
        code, version = code_identity(type(self.patcher)), self.patcher.version
        return {
            "name": self.patcher.name,
            "options": self.patcher.identity_options(),
            **({} if code is None else {"code": code}),
            **({} if version == 1 else {"version": version}),
        }


@dataclass(frozen=True)
class PretrainedRow:
    """One line of the table to be: a model that was trained elsewhere, scored as the trained ones are."""

    label: str
    files: PretrainedFiles
    window: int  # bytes of context, those of the trained rows


def _is_label(label: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}", label):
        raise BenchError(f"{label!r} cannot name files; use up to 80 letters, digits and . _ + -")
    return label


def _is_domain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+-]*", name) or name in ("bpb", "bpc") or name.startswith("bpc_"):
        raise BenchError(
            f"{name!r} cannot name a column; use letters, digits and _ + -, and neither bpb nor bpc, which are taken"
        )
    return name


Label = Annotated[str, AfterValidator(_is_label)]
DomainName = Annotated[str, AfterValidator(_is_domain)]


@dataclass(frozen=True)
class SuiteConfig:
    """A suite as it stands in the YAML, after `base:` (the suite whose data, sizes and training it has, but for what it
    says itself) was filled in."""

    data: DataConfig  # where the text comes from and how it is split
    rows: Annotated[dict[Label, dict[str, Any]], Field(min_length=1)]  # the lines of the table, by label
    name: Label | None = None  # of the folder in the results; by default the file's
    plugins: tuple[str, ...] = ()  # Python files that register patchers or tasks
    model: HarnessConfig = field(default_factory=HarnessConfig)  # sizes of the harness, in all rows of that model
    token_lm: TokenLMConfig = field(default_factory=TokenLMConfig)  # sizes of the token LM
    byte_lm: ByteLMConfig = field(default_factory=ByteLMConfig)  # sizes of the byte LM
    train: TrainConfig = field(default_factory=TrainConfig)  # how models are trained
    # Each row is trained once a seed; seeds vary initial weights and the order of the data, alike in all rows.
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    match: Match = "placement"  # what is made equal between rows, and checked after the run
    match_to: str | None = None  # the row whose FLOPs the others get; by default the first
    train_flops: Positive | None = None  # instead of a row's
    bytes_per_patch: PatchSize = None  # to what knobs are set: a mean size, or a row whose realised size it is
    # Keys with dots and the values that all rows are run at; `patchbench fit` reads them.
    sweep: dict[str, Annotated[tuple[int | float, ...], Field(min_length=1)]] = field(default_factory=dict)
    # What a trained model is asked; `patchbench list tasks`.
    tasks: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)] = ("bpb",)
    eval: dict[DomainName, dict[str, Any]] = field(default_factory=dict)  # further texts to be scored, by name
    columns: tuple[str, ...] = ()  # of its table, where nothing else is asked for
    launch: LaunchConfig = field(default_factory=LaunchConfig)  # where runs go; no number depends on it
    # Curves while a model is trained, into RESULTS/SUITE/tensorboard (extra `tensorboard`); no number depends on it.
    log: Literal["tensorboard"] | None = None


@dataclass(frozen=True)
class Suite:
    """A suite, checked: every row has its model's sizes, its training and its patcher."""

    name: str
    data: DataConfig
    rows: tuple[Row, ...]  # that are trained
    seeds: tuple[int, ...]
    match: Match
    bytes_per_patch: float | str | None  # of the rows that do not say otherwise
    tasks: tuple[Task, ...]
    eval: Mapping[str, DataConfig]  # other texts to be scored (their test splits), by name
    columns: tuple[str, ...]  # of its table, where they are not asked for
    launch: LaunchConfig
    log: Literal["tensorboard"] | None = None
    pretrained: tuple[PretrainedRow, ...] = ()

    @property
    def labels(self) -> list[str]:
        """Of all rows, in the order of tables: pretrained ones stand behind those that are trained."""
        return [*(row.label for row in self.rows), *(row.label for row in self.pretrained)]

    def row(self, label: str) -> Row:
        found = {row.label: row for row in self.rows}
        if label not in found:
            raise unknown("row", label, found)
        return found[label]

    def run_config(self, label: str) -> dict[str, Any]:
        """What a run of this row is, as JSON: everything that its numbers depend on, and nothing else.

        `bytes_per_patch` is null where the row is not calibrated, and the other row's patcher where the row
        goes to that one's realised size.
        """
        data = identity(self.data)
        for one in self.pretrained:
            if one.label == label:
                return plain({"data": data, "model": one.files.identity(), "train": {"window": one.window}})
        row = self.row(label)
        return plain(
            {
                "data": data,
                "model": {"kind": row.model, **identity(row.sizes)},
                "train": identity(row.train),
                "patcher": row.patcher_options(),
                "price": row.price,
                "leaky": row.leaky,
                "calibrate": row.calibrate,
                "match": self.match,
                "bytes_per_patch": self._size(row),
                **({} if row.grow_to is None else {"grow_to": self._other(row.grow_to)}),
                **({} if row.match_to is None else {"match_to": self._reference(row)}),
                **({} if row.sweep is None else {"sweep": row.sweep}),
            }
        )

    def _reference(self, row: Row) -> Any:
        """Whose FLOPs a row gets, as its run's identity has it: a number, itself, or another row and what it is."""
        if not isinstance(row.match_to, str):
            return row.match_to
        if row.match_to == row.label:
            return {"row": base_label(row)}
        return self._other(row.match_to)

    def _other(self, label: str) -> Any:
        """Another row, and what its FLOPs depend on."""
        other = self.run_config(label)
        wanted = ("model", "train", "patcher", "price", "bytes_per_patch")
        return {"row": base_label(self.row(label)), **{key: other[key] for key in wanted}}

    def _size(self, row: Row) -> Any:
        """What a row is calibrated to, as its run's identity has it."""
        if not isinstance(row.bytes_per_patch, str):
            return row.bytes_per_patch
        other = self.row(row.bytes_per_patch)
        size = {"row": base_label(other), "patcher": other.patcher_options()}
        return size if other.bytes_per_patch is None else {**size, "bytes_per_patch": self._size(other)}

    def resolved(self) -> dict[str, Any]:
        """The whole suite as JSON, defaults filled in."""
        return {
            "name": self.name,
            "data": plain(identity(self.data)),
            "seeds": list(self.seeds),
            "match": self.match,
            "bytes_per_patch": self.bytes_per_patch,
            "tasks": plain([task.as_config() for task in self.tasks]),
            "eval": {name: plain(identity(config)) for name, config in self.eval.items()},
            "rows": {label: self.run_config(label) for label in self.labels},
        }


def base_label(row: Row) -> str:
    """The label that a row has in the YAML."""
    return row.label if row.sweep is None else str(row.sweep["row"])


def identity(config: Any) -> dict[str, Any]:
    """A config dataclass as a dict, without the fields that do not change what comes out, and those that do only where
    they are set."""
    values = dataclasses.asdict(config)
    kinds = {f.name: f.metadata.get("identity", True) for f in dataclasses.fields(config)}
    is_set = {name for name, value in values.items() if value is not None and value is not False}
    return {name: values[name] for name, kind in kinds.items() if (name in is_set if kind == "when set" else kind)}


def plain(value: Any) -> Any:
    """The same as JSON has it: tuples as lists."""
    return json.loads(json.dumps(value, allow_nan=False))


# --- from YAML


def load_suite(name: str, overrides: Sequence[str] = (), plugins: Sequence[str] = ()) -> Suite:
    """Read a suite by path or by the name of one that ships, apply `key=value` overrides, and check it.

    Raises BenchError for all that a user can mend; a plug-in's own exception is its own.
    """
    path = find_suite(name)
    tree = parse_file(path, f"suite {name}")
    tree.folder = folder_of(path)
    return suite_from_tree(tree, path.stem, overrides, plugins)


def load_plugins(named: Sequence[str], tree: Tree, more: Sequence[str]) -> None:
    """Those that a file names under `plugins`, and more. Raises BenchError at the place of one that is none."""
    for index, plugin in enumerate(named):
        try:
            load_plugin(located(plugin, tree.at("plugins").folder))
        except BenchError as error:
            raise (tree.at("plugins") / index).error(str(error)) from error
    for plugin in more:
        load_plugin(plugin)


def suite_from_tree(tree: Tree, stem: str, overrides: Sequence[str], plugins: Sequence[str]) -> Suite:
    if not isinstance(tree.value, dict):
        raise tree.at().error("a suite needs keys; the least it can have are data and rows")
    _take_from_base(tree)
    _expand_short_forms(tree.value)
    for text in overrides:
        tree.override(text)
        _expand_short_forms(tree.value)
    _keep_one_source(tree)
    config = dataclass_from_mapping(SuiteConfig, tree.value, tree.at())
    load_plugins(config.plugins, tree, plugins)
    pretrained, trained = _pretrained(config, tree)
    config = dataclasses.replace(config, rows=trained)
    _check_matching(config, tree)
    _check_sweep(config, tree)
    rows = _rows(config, tree)
    _check_graphs(config.launch, rows, tree)
    if len(set(config.seeds)) < len(config.seeds):
        raise tree.at("seeds").error(f"each seed counts once, got {list(config.seeds)}")
    return Suite(
        name=config.name or stem,
        launch=config.launch,
        log=config.log,
        data=_placed(config.data, tree.at("data")),
        rows=rows,
        pretrained=pretrained,
        seeds=config.seeds,
        match=config.match,
        bytes_per_patch=config.bytes_per_patch,
        tasks=read_tasks(config.tasks, tree.at("tasks")),
        columns=config.columns,
        eval={name: _domain(mapping, tree.at("eval", name)) for name, mapping in config.eval.items()},
    )


def _pretrained(config: SuiteConfig, tree: Tree) -> tuple[tuple[PretrainedRow, ...], dict[str, dict[str, Any]]]:
    """The rows whose `model` is one that was trained elsewhere, and the others as they stand."""
    found, others = [], {}
    for label, mapping in config.rows.items():
        place = tree.at("rows", label)
        if not isinstance(mapping.get("model"), dict):
            others[label] = mapping
            continue
        for key in mapping:
            if key != "model":
                raise (place / key).error("a pretrained row is scored as it is and takes only model; leave this out")
        wanted = dataclass_from_mapping(PretrainedConfig, mapping["model"], place / "model")
        try:
            here = located(wanted.hf, (place / "model" / "hf").folder, os.path.isdir)
            files = locate(dataclasses.replace(wanted, hf=here) if os.path.isdir(here) else wanted)
        except BenchError as error:
            raise (place / "model" / "hf").error(str(error)) from error
        found.append(PretrainedRow(label, files, config.train.window))
    return tuple(found), others


def _domain(mapping: Mapping[str, Any], place: Place) -> DataConfig:
    return _placed(dataclass_from_mapping(DataConfig, mapping, place), place)


def _placed(data: DataConfig, place: Place) -> DataConfig:
    """With the folder that its relative paths begin in."""
    source = place / "files" if data.files else place / "dataset" / "path"
    return dataclasses.replace(data, folder=source.folder)


def _rows(config: SuiteConfig, tree: Tree) -> tuple[Row, ...]:
    """The rows as they stand, or at every value of the sweep."""
    values = config.sweep.get("bytes_per_patch")
    if values is not None and config.bytes_per_patch is None:  # then rows with a knob are calibrated
        config = dataclasses.replace(config, bytes_per_patch=float(values[0]))
    stand = {label: _row(label, mapping, config, tree.at("rows", label)) for label, mapping in config.rows.items()}
    _check_sizes(config, list(stand.values()), tree)
    _check_growth(stand, tree)
    keys = {label: [key for key in config.sweep if applies(key, r.model, r.calibrate)] for label, r in stand.items()}

    def beside(label: str, settings: Mapping[str, float]) -> str:
        """The label of another row at the same values."""
        return swept_label(label, {key: settings.get(key, config.sweep[key][0]) for key in keys[label]})

    rows = []
    for label, mapping in config.rows.items():
        for settings in combinations({key: config.sweep[key] for key in keys[label]}):
            row = _row(label, apply(mapping, settings), config, tree.at("rows", label))
            size = row.bytes_per_patch
            budget = settings.get("train_flops", config.train_flops)
            to = budget if budget is not None else beside(config.match_to or next(iter(stand)), settings)
            rows.append(
                dataclasses.replace(
                    row,
                    label=swept_label(label, settings),
                    bytes_per_patch=beside(size, settings) if isinstance(size, str) else size,
                    grow_to=None if row.grow_to is None else beside(row.grow_to, settings),
                    match_to=to if config.match in BY_FLOPS else None,
                    sweep=description(label, settings),
                )
            )
    return tuple(rows)


def _check_matching(config: SuiteConfig, tree: Tree) -> None:
    """Whose FLOPs rows get is said once, and fits the way to match."""
    wanted = [(tree.at("match_to"), config.match_to is not None, BY_FLOPS)]
    wanted.append((tree.at("train_flops"), config.train_flops is not None, ("train_flops",)))
    wanted.append((tree.at("sweep", "train_flops"), "train_flops" in config.sweep, ("train_flops",)))
    for place, given, ways in wanted:
        if given and config.match not in ways:
            raise place.error(f"this is for match: {' or '.join(ways)}, and match is {config.match}; leave one out")
    if config.match_to is not None and config.match_to not in config.rows:
        near = nearest(config.match_to, list(config.rows))
        raise tree.at("match_to").error(f"wanted the label of a row, got {config.match_to!r}{near}")
    said = [place for place, given, _ in wanted if given]
    if len(said) > 1:
        raise said[1].error(f"{said[0].path[-1]} says already what rows are matched to; leave one out")
    if config.match != "train_flops":
        return
    numbers = config.train_flops is not None or "train_flops" in config.sweep
    if numbers and "train.bytes" in config.sweep:
        raise tree.at("sweep", "train.bytes").error("train_flops sets how many bytes rows read; leave one out")
    for label, mapping in config.rows.items():
        is_reference = not numbers and label == (config.match_to or next(iter(config.rows)))
        if not is_reference and "bytes" in (mapping.get("train") or {}):
            raise tree.at("rows", label, "train", "bytes").error("match: train_flops sets this; leave it out")


def sweep_keys() -> list[str]:
    """What a sweep may be over."""
    sections = {"train": TrainConfig, "model": HarnessConfig, "token_lm": TokenLMConfig, "byte_lm": ByteLMConfig}
    keys = [f"{name}.{f.name}" for name, section in sections.items() for f in dataclasses.fields(section)]
    return ["bytes_per_patch", "train_flops", *keys]


def _check_sweep(config: SuiteConfig, tree: Tree) -> None:
    """A sweep is over keys that are there, at values that differ."""
    known = sweep_keys()
    for key, values in config.sweep.items():
        place = tree.at("sweep", key)
        if key not in known:
            raise place.error(f"no key to sweep over{nearest(key, known)}; there are: {', '.join(known)}")
        for index, value in enumerate(values):
            if isinstance(value, bool) or not value > 0 or value in values[:index]:
                raise (place / index).error(f"wanted numbers above 0, each once, got {value}")


def _check_sizes(config: SuiteConfig, rows: Sequence[Row], tree: Tree) -> None:
    """A row whose size others take is there, has patches, and does not take its own from them."""
    found = {row.label: row for row in rows}
    asked = {label: mapping.get("bytes_per_patch") for label, mapping in config.rows.items()}
    places = [(tree.at("rows", label, "bytes_per_patch"), size) for label, size in asked.items()]
    for place, size in [(tree.at("bytes_per_patch"), config.bytes_per_patch), *places]:
        if isinstance(size, str) and (size not in found or found[size].patcher is None):
            near = nearest(size, list(found))
            raise place.error(f"wanted a number of at least 1 or a row that has a patcher, got {size!r}{near}")
    for row in rows:
        chain = [row.label]
        while isinstance(size := found[chain[-1]].bytes_per_patch, str):
            if size in chain:
                place = tree.at("rows", row.label) if asked[row.label] else tree.at()
                around = " to ".join([*chain, size])
                raise (place / "bytes_per_patch").error(
                    f"rows take their sizes in a circle, {around}; give one of them a number"
                )
            chain.append(size)


def _check_graphs(launch: LaunchConfig, rows: Sequence[Row], tree: Tree) -> None:
    """CUDA graphs write gradients where they wrote those of the part before, and hold no exchange between ranks."""
    for row in rows:
        parts = launch.micro_bytes is not None and launch.micro_bytes < row.train.batch_bytes
        if row.train.compile == "cuda_graphs" and (launch.devices > 1 or parts):
            key = "devices" if launch.devices > 1 else "micro_bytes"
            raise tree.at("launch", key).error(
                f"row {row.label!r} has compile: cuda_graphs, which wants one rank and each batch in one part; leave "
                "one of the two out"
            )


def _check_growth(rows: Mapping[str, Row], tree: Tree) -> None:
    """`grow_to` is for a harness, and names a row that does not grow itself."""
    for label, row in rows.items():
        if row.grow_to is None:
            continue
        place = tree.at("rows", label, "grow_to")
        if not isinstance(row.sizes, HarnessConfig):
            raise place.error(f"only a harness has a local model that could grow, and this is a {row.model}")
        if row.grow_to not in rows or row.grow_to == label or rows[row.grow_to].grow_to is not None:
            others = [other for other in rows if other != label and rows[other].grow_to is None]
            raise place.error(
                f"wanted the label of another row, one that does not grow, got {row.grow_to!r}"
                f"{nearest(row.grow_to, others)}"
            )


WHOLE = ("data", "match", "bytes_per_patch", "plugins")
BY_KEY = ("model", "token_lm", "byte_lm", "train")
"""What a suite has of its `base`, where it does not say it itself; of sections each key."""


def _take_from_base(tree: Tree) -> None:
    """Fill in what `base:` has. Raises BenchError for a base that there is none of, or that has one itself."""
    if "base" not in tree.value:
        return
    name, place = tree.value.pop("base"), tree.at("base")
    if not isinstance(name, str):
        raise place.error(f"wanted a path, or the name of a suite that ships, got {name!r}")
    try:
        beside = located(name, place.folder, os.path.isfile)
        path = find_suite(beside if os.path.isfile(beside) else name)
        base = parse_file(path, name).value
    except BenchError as error:
        raise place.error(str(error)) from error
    if not isinstance(base, dict) or "base" in base:
        raise place.error(f"{name} has a base itself, or is no suite; wanted one that stands alone")
    for key in (key for key in WHOLE if key in base):
        if key not in tree.value:
            tree.value[key] = base[key]
            tree.folders[key,] = folder_of(path)
    for key in (key for key in BY_KEY if isinstance(base.get(key), dict)):
        own = tree.value.get(key)
        if own is None or isinstance(own, dict):
            tree.value[key] = {**base[key], **(own or {})}


def _expand_short_forms(suite: dict[str, Any]) -> None:
    """`patcher: NAME` is short for `patcher: {name: NAME}`, `files: GLOB` for `files: [GLOB]`, and in `eval`
    `NAME: CORPUS` for `NAME: {corpus: CORPUS}`."""
    rows, domains = suite.get("rows"), suite.get("eval")
    for row in rows.values() if isinstance(rows, dict) else ():
        if isinstance(row, dict) and isinstance(row.get("patcher"), str):
            row["patcher"] = {"name": row["patcher"]}
    if isinstance(domains, dict):
        domains.update({name: {"corpus": corpus} for name, corpus in domains.items() if isinstance(corpus, str)})
    for data in (suite.get("data"), *(domains.values() if isinstance(domains, dict) else ())):
        if isinstance(data, dict) and isinstance(data.get("files"), str):
            data["files"] = [data["files"]]


def _keep_one_source(tree: Tree) -> None:
    """An override of one source of data takes the place of the one in the file: they exclude each other."""
    sources = ("corpus", "files", "dataset")
    overridden = {path[1] for path in tree.overrides if path[0] == "data" and len(path) > 1}
    if isinstance(tree.value.get("data"), dict) and overridden & set(sources):
        for source in set(sources) - overridden:
            tree.value["data"].pop(source, None)
        if "files" not in tree.value["data"] and "field" not in overridden:
            tree.value["data"].pop("field", None)


def _row(label: str, mapping: Mapping[str, Any], suite: SuiteConfig, place: Place) -> Row:
    config = dataclass_from_mapping(RowConfig, mapping, place)
    base: Sizes = getattr(suite, SECTIONS[config.model])
    sizes = dataclass_from_mapping(type(base), config.options, place / "options", base)
    _check_model(sizes, config, place)
    train = dataclass_from_mapping(TrainConfig, config.train, place / "train", suite.train)
    patcher = None if config.patcher is None else _patcher(config.patcher, place / "patcher")
    if patcher is not None and patcher.kind == "in-model" and isinstance(sizes, HarnessConfig):
        sizes = dataclasses.replace(sizes, pool="last")  # a router fires where a patch ends: that state is it
    if config.model == "byte_lm":
        if patcher is not None:
            raise (place / "patcher").error("a byte_lm has no patches and takes no patcher; leave it out")
    elif patcher is None:
        raise place.error(f"a {config.model} needs a patcher; write for instance `patcher: stride`")
    if config.model == "token_lm" and not hasattr(patcher, "encode"):
        raise (place / "patcher").error("a token_lm needs a patcher with a vocabulary, such as bpe")
    open_boundaries = config.model == "harness" and patcher is not None and not patcher.causal
    for key, given in (("price", config.price is not None), ("leaky", config.leaky)):
        if given and not open_boundaries:
            raise (place / key).error("only a harness whose patcher is not causal has boundaries to pay for")
    if config.leaky and config.price is not None:
        raise (place / "leaky").error("a leaky row leaves its boundaries unpaid; give either price or leaky")
    price = (config.price or DEFAULT_PRICE) if open_boundaries and not config.leaky else None
    if isinstance(sizes, HarnessConfig):
        sizes = _with_boundary_inputs(sizes, price, config, place)
    size = config.bytes_per_patch or suite.bytes_per_patch
    calibrate = config.calibrate and size not in (None, label)
    knob = None if patcher is None else patcher.knob
    if calibrate and knob is not None and config.patcher is not None and knob in config.patcher:
        raise (place / "patcher" / knob).error(
            f"calibration to bytes_per_patch sets {knob}; leave it out, or give the row `calibrate: false`"
        )
    if config.bytes_per_patch is not None and (knob is None or not config.calibrate):
        why = "the row has no knob to set" if knob is None else "the row is not calibrated"
        raise (place / "bytes_per_patch").error(f"{why}; leave it out")
    return Row(
        label=label,
        model=config.model,
        sizes=sizes,
        train=train,
        patcher=patcher,
        price=price,
        leaky=config.leaky,
        calibrate=calibrate and knob is not None,
        bytes_per_patch=size if calibrate and knob is not None else None,
        grow_to=config.grow_to,
    )


def _with_boundary_inputs(sizes: HarnessConfig, price: Price | None, row: RowConfig, place: Place) -> HarnessConfig:
    """The sizes with what the local model is told of the cut filled in, so that it is in a run's name and record.

    A suite's `model: {boundary_inputs: none}` is of its rows with free boundaries; others are told the flags, paid for
    (priced) or not (leaky): without them a price would buy nothing, and a leak would be hidden.
    """
    if price is None and not row.leaky:
        return dataclasses.replace(sizes, boundary_inputs=boundary_inputs_of(sizes, None))
    if row.options.get("boundary_inputs") == "none":
        raise (place / "options" / "boundary_inputs").error(
            "the boundaries of this row are not free, and what is paid for must be usable: wanted flag or prefix"
        )
    told = sizes.boundary_inputs if sizes.boundary_inputs != "none" else None
    return dataclasses.replace(sizes, boundary_inputs=told or "flag")


def _check_model(sizes: Sizes, row: RowConfig, place: Place) -> None:
    """That a model can be made of these sizes, which are the row's own or those of the suite's section."""

    def wrong(key: str, message: str) -> BenchError:
        section = place / "options" if key in row.options else place.tree.at(SECTIONS[row.model])
        return (section / key).error(message)

    for key, value in dataclasses.asdict(sizes).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool):
                continue
            if isinstance(number, int) and number < 1:
                raise wrong(key, f"wanted at least 1, got {number}")
            if isinstance(number, float) and not 0 <= number < math.inf:
                raise wrong(key, f"wanted a number of at least 0, got {number}")
    for width, heads in HEADS.items():
        size, count = getattr(sizes, width, 0), getattr(sizes, heads, 1)
        if size % (2 * count):
            raise wrong(width, f"wanted a multiple of {2 * count} (twice {heads}; each is of even width), got {size}")


def _patcher(mapping: Mapping[str, Any], place: Place) -> Patcher:
    options = dict(mapping)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise (place / "name").error(f"wanted a patcher's name, got {name!r}; see `patchbench list patchers`")
    try:
        file = get(name).file_option
        given = options.get(file or "")
        if file is None or not isinstance(given, str):
            return create(name, **options)
        # It has read the file; the path stays as it was written, the same on every machine.
        found = create(name, **{**options, file: located(given, (place / file).folder)})
        return dataclasses.replace(found, **{file: given})
    except BenchError as error:
        text = str(error)
        named = [key for key in options if f"'{key}'" in text]
        blamed = min(named, key=lambda key: text.index(f"'{key}'"), default="name")
        raise (place / blamed).error(text) from error
