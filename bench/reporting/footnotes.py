"""Footnotes of tables: data, training, matching, intervals and definitions, from the records."""

from collections.abc import Iterable, Mapping

from bench.records.comparison import Equal, Failure, Runs, told_of
from bench.records.record import Record, dig, is_pretrained

BOLD = (
    "Bold (*, where there is no bold): the best row, and every row that is not shown to be worse. Shown to be worse "
    "is a row whose paired difference to the best has an interval without zero that reaches beyond the margin"
)
VERDICT = (
    "Verdict: tie, the interval of the difference is within the margin; better or worse, it is not, and excludes "
    "zero; undecided, it does neither. Margin"
)
FLOPS = (
    "FLOPs: a multiply-add is two; forward per byte, patches as they fell in the training text, patcher included; "
    "training is three times forward for what is trained."
)
PAPER = (
    "FLOPs by the paper's formula: BLT's own (its appendix), which takes every window as full and the patcher as free."
)
PRICED = (
    "Priced: boundaries that depend on later bytes are predicted along with the bytes, and their bits count; the "
    "number bounds that of the text from above."
)
LATENT_GAIN = (
    "Latent gain: bits per byte lost when the latent outputs of the trained model are replaced by BOS's. An ablation "
    "without retraining, which shows how far the rest of the model leans on them, not what patches are worth."
)
LEAKY = (
    "The model is told where patches begin and does not pay for it, so that the number is too low; shown for "
    "research, marked, never ranked."
)
PRETRAINED = (
    "trained elsewhere, on texts and with compute that are not known (this test text may be among them); shown beside "
    "the trained rows, ranked only among themselves, and in no difference or worth with the others."
)
QUANTITIES = {
    "bytes_per_patch": "bytes/patch of the calibration text",
    "train_flops": "training FLOPs",
    "flops_per_byte": "FLOPs/byte",
    "train_bytes": "train bytes",
}
BPB = "bpb: bits per raw byte of the test split, summed over its documents (micro-average)"
BPC = "bpc: the same bits per character"


def at_chance(chances: Mapping[str, tuple[float, list[str], bool]]) -> list[str]:
    """Of metrics, what guessing comes to, which rows are not told from it, and whether that is every row."""
    return [
        f"At chance in {metric} (guessing: {chance:.2f}), so that it says nothing of "
        f"{'any row' if everybody else ', '.join(rows)}: the interval does not lie above it."
        for metric, (chance, rows, everybody) in chances.items()
        if rows
    ]


def untrained(metric: str, rows: list[str]) -> str:
    return (
        f"{metric} of {', '.join(rows)}: the same model before its training is not shown to do worse, so that nothing "
        "of it is shown to be learnt: states pass on what a model reads."
    )


def what_was_run(records: list[Record]) -> list[str]:
    """Data, window, training, what was matched, and on what machine; the records are comparable."""
    if not records:
        return []
    first = records[0]
    test = first["data"]["splits"]["test"]
    notes = [
        f"Data: {first['data']['name']} ({first['data']['fingerprint'][:12]}); test split: {test['documents']:,} "
        f"documents, {test['bytes']:,} bytes."
    ]
    window = dig(first, "config.train.window")
    if window is not None:
        notes.append(
            f"Window: {window:,} bytes in training and scoring; long documents are scored by windows with half a "
            "window of context, every byte once."
        )
    steps = {record["loss_curve"][-1][0] for record in records if record.get("loss_curve")}
    if of_training := [record for record in records if not is_pretrained(record)]:
        trained = f"Trained on {_span(record['cost']['train_bytes'] for record in of_training)} bytes"
        notes.append(trained + (f" in {_span(steps)} steps" if steps else "") + f"; {matched(of_training)}.")
        notes += several_versions(of_training)
    machines = {_machine(record) for record in records}
    text = "Measured on " + " and on ".join(sorted(machines))
    notes.append(f"{text}: bytes/s of different machines do not compare." if len(machines) > 1 else f"{text}.")
    return notes


def several_versions(records: Iterable[Record]) -> list[str]:
    """That some rows were trained by older code than others; records from before version 3 do not say by which."""
    by: dict[str, dict[str, None]] = {}
    for record in sorted(records, key=lambda record: dig(record, "environment.training_version") or 0):
        by.setdefault(str(dig(record, "environment.training_version") or "2 or older"), {})[record["row"]] = None
    if len(by) < 2:
        return []
    said = "; ".join(f"version {version}: {', '.join(rows)}" for version, rows in by.items())
    return [f"Trained by different versions of the training code, whose weights differ, if only by rounding ({said})."]


def _machine(record: Record) -> str:
    threads = dig(record, "environment.threads")
    return f"{dig(record, 'environment.device')}, {threads} thread{'' if threads == 1 else 's'}"


def matched(records: list[Record]) -> str:
    """What was made equal and how closely, in words."""
    text = (
        f"matched: {', '.join(sorted({str(dig(record, 'config.match')) for record in records}))}{_closeness(records)}"
    )
    sizes = [dig(record, "config.bytes_per_patch") for record in records]
    wanted = {
        f"{size['row']}'s bytes/patch" if isinstance(size, Mapping) else f"{size} bytes/patch"
        for size in sizes
        if size is not None
    }
    free = dict.fromkeys(record["row"] for record, size in zip(records, sizes, strict=True) if size is None)
    text += f", calibrated to {' and '.join(sorted(wanted))}" if wanted else ""
    return text + (f" (not calibrated: {', '.join(free)})" if wanted and free else "")


def _closeness(records: list[Record]) -> str:
    """Of the runs that were held to something, the one that is furthest from it; and those that were not checked."""
    held = [record for record in records if dig(record, "matched.deviation") is not None]
    unchecked = dict.fromkeys(record["row"] for record in records if not record.get("matched"))
    said = []
    if held:
        furthest = max(held, key=lambda record: abs(record["matched"]["deviation"]))
        what = " and ".join(dict.fromkeys(QUANTITIES[record["matched"]["quantity"]] for record in held))
        others = dict.fromkeys(f"{record['matched']['row']}'s" for record in held if record["matched"]["row"])
        wanted = " and ".join(others) if all(record["matched"]["row"] for record in held) else "what was wanted"
        away = abs(furthest["matched"]["deviation"])
        said.append(f"{what} within {away:.1%} of {wanted}; furthest: {furthest['row']}".replace("%", " %"))
    drift = [(abs(off), record["row"]) for record in held for off in (dig(record, "matched.elsewhere") or {}).values()]
    if drift:
        off, row = max(drift)
        said.append(f"of the training text within {off:.1%}; furthest: {row}".replace("%", " %"))
    if unchecked and len(unchecked) < len({record["row"] for record in records}):
        said.append(f"not checked: {', '.join(unchecked)}")
    return f" ({'; '.join(said)})" if said else ""


TOLD = {
    "flag": "where patches begin, and the place in the patch",
    "prefix": "these, and a hash of the open patch's bytes",
}


def told(rows: Iterable[Runs]) -> list[str]:
    """What local models were told of the cut, where any was told something."""
    by: dict[str, list[str]] = {}
    for runs in rows:
        for what in dict.fromkeys(told_of(record) for record in runs.records):
            if what is not None:
                by.setdefault(what, []).append(runs.label)
    if not by.keys() - {"none"}:
        return []
    said = [f"{what} ({TOLD[what]}): {', '.join(by[what])}" for what in TOLD if what in by]
    note = f"Told: what the local model is given of the cut beside what it pools and reads; {'; '.join(said)}."
    if len(by) > 1:
        note += " Between rows that are told different things a difference is not of placement alone."
    return [note]


def lossy(runs: Runs) -> str:
    """What a row's tokenizer loses of the test text."""
    said = "; ".join(dict.fromkeys(runs.values("patcher.losses.words")))
    return f"{runs.label}, not lossless: {said}. A model over tokens reads and pays these bytes one by one."


def pretrained(rows: Iterable[Runs]) -> list[str]:
    """Which models were trained elsewhere, and what is particular in how each was read."""
    known = [runs for runs in rows if runs.pretrained and runs.records]
    notes = [f"Pretrained: {', '.join(runs.label for runs in known)}; {PRETRAINED}"] if known else []
    for runs in known:
        about = runs.records[0]["pretrained"]
        vocabulary, test = about["vocabulary"], about["test"]
        said = []
        if vocabulary["bos"] is None:
            said.append("it has no token to stand before a text, so the first unit of each is one of all alike")
        if not vocabulary["lossless"]:
            said.append(
                f"its tokenizer does not keep every text: of {test['lossy_documents']:,} documents of the test text it "
                f"loses bytes, which are spelled for {test['bits_for_lost_bytes']:,.0f} bits that count"
            )
        if test["short_windows"]:
            said.append(
                f"it takes {about['most_units']:,} units at once, less than {test['short_windows']:,} of the windows "
                "hold, so that it sees less context there than the other rows"
            )
        notes += [f"{runs.label}: {one}." for one in said]
    return notes


def worth(controls: Iterable[tuple[Runs, list[str]]], equal: Equal) -> str:
    """How a column of worth came about: which control is whose."""
    at = "the same bytes" if equal == "bytes" else "training FLOPs at least as many"
    whose = []
    for control, labels in controls:
        sizes = ", ".join(f"{k} {v}" for k, v in (dig(control.any_record, "matched.set") or {}).items())
        grown = f" (its local model grown: {sizes})" if dig(control.any_record, "config.grow_to") is not None else ""
        whose.append(f"{control.label}{grown} for {', '.join(labels)}")
    return (
        f"Worth at equal {'bytes' if equal == 'bytes' else 'training FLOPs'}: the control (a trained model without "
        f"patches; {at}) minus the row, paired by document and by seed; {'; '.join(whose)}."
    )


def intervals(rows: Iterable[Runs], resamples: int) -> str:
    """What the intervals are over."""
    seeds = {runs.label: runs.seeds for runs in rows if runs.records}
    several = any(len(of_row) > 1 for of_row in seeds.values())
    over = (
        f"bootstrap over documents ({resamples:,} resamples), Student's t over seeds"
        if several
        else f"bootstrap over documents ({resamples:,} resamples); one seed says nothing about training noise"
    )
    usual = max(seeds.values(), key=lambda of_row: sum(other == of_row for other in seeds.values()))
    others = [f"{label}: {', '.join(map(str, of_row))}" for label, of_row in seeds.items() if of_row != usual]
    text = f"[95 %]: {over}. {_seeds(usual).capitalize()}"
    return (
        f"{text} ({'; '.join(others)}; differences are over the seeds that both rows have)." if others else f"{text}."
    )


def without_number(label: str, failures: list[Failure], what: str = "number") -> list[str]:
    """One note a reason."""
    reasons: dict[str, list[int]] = {}
    for failure in failures:
        reasons.setdefault(failure.full, []).append(failure.seed)
    return [f"No {what} for {label}, {_seeds(seeds)}: {reason}" for reason, seeds in reasons.items()]


def _span(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _seeds(seeds: list[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
