"""Records are written whole, read as written or refused by name, and worked on by one process at a time."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_builder import make_failed, make_record, put

from bench import records
from bench.records import record as record_module
from bench.system.files import write_atomic
from patchers.errors import BenchError

ROOT = Path(__file__).resolve().parents[3]


# --- run ids


def test_a_run_id_names_row_and_seed_and_depends_on_all_that_makes_the_numbers() -> None:
    base: dict[str, Any] = {
        "row": "bpe-v2",
        "seed": 3,
        "run_config": {"train": {"lr": 3e-3}, "model": {"kind": "harness"}},
        "data_fingerprint": "abc",
        "tasks": {"bpb": 1},
    }
    name = records.run_id(**base)
    assert re.fullmatch(r"bpe-v2-s3-[0-9a-f]{12}", name)
    assert records.run_id(**base) == name
    reordered = {"model": {"kind": "harness"}, "train": {"lr": 0.003}}
    assert records.run_id(**{**base, "run_config": reordered}) == name
    others: list[dict[str, Any]] = [
        {"seed": 4},
        {"run_config": {"train": {"lr": 1e-3}, "model": {"kind": "harness"}}},
        {"data_fingerprint": "abd"},
        {"tasks": {"bpb": 2}},
        {"tasks": {"bpb": 1, "noise": {"version": 1, "options": {"levels": [0.1]}}}},
        {"domains": {"code": "f" * 64}},
    ]
    hashes = {records.run_id(**{**base, **other}).split("-")[-1] for other in others}
    assert len(hashes | {name.split("-")[-1]}) == 1 + len(others)


def test_a_run_id_is_the_same_in_every_process_and_version() -> None:
    assert records.run_id("a", 0, {"x": [1, 2.5, "é", None, True]}, "f", {"bpb": 1}) == "a-s0-ae6d654e5c24"


@pytest.mark.parametrize("row", ["", "../up", "a/b", "a b", "x" * 101, "-a"])
def test_a_row_that_cannot_name_a_file_is_refused(row: str) -> None:
    with pytest.raises(BenchError, match="cannot name a file"):
        records.run_id(row, 0, {}, "f", {})


# --- write and read


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = make_record()
    path = records.write(tmp_path, record)
    assert path == records.run_path(tmp_path, "quick", record["run_id"])
    assert records.read(path) == {**record, "schema": 1}
    assert records.find(tmp_path, "quick", record["run_id"]) == {**record, "schema": 1}
    assert records.find(tmp_path, "quick", "stride-s0-000000000000") is None
    assert [p.name for p in path.parent.iterdir()] == [path.name], "something was left behind"


def test_the_same_record_makes_the_same_file_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    record = make_record(documents=20)
    first = records.write(tmp_path / "a", record).read_bytes()
    second = records.write(tmp_path / "b", dict(reversed(record.items()))).read_bytes()
    assert first == second
    assert first.startswith(b'{\n "schema": 1,\n "run_id": "stride-s0-')
    assert max(len(line) for line in first.splitlines()) < 200, "a line a document, for diffs"


def test_numpy_tuples_odd_names_and_what_is_not_finite(tmp_path: Path) -> None:
    record = make_record(changes={"parameters.total": np.int64(5), "flops.train": np.float32(0.5)})
    record["loss_curve"] = [(1, 2, float("nan"), np.inf), np.array([1.5, 2.5])]
    record["log"] = Path("a") / "\udc80é"  # a file name that is not UTF-8, as Python has it
    got = records.read(records.write(tmp_path, record))
    assert got["parameters"]["total"] == 5
    assert got["flops"]["train"] == 0.5
    assert got["loss_curve"] == [[1, 2, None, None], [1.5, 2.5]]
    assert got["log"] == "a/\udc80é"


def test_a_failed_run_is_a_record_and_is_not_done(tmp_path: Path) -> None:
    failed, ok = make_failed(), make_record()
    assert failed["run_id"] == ok["run_id"]
    path = records.write(tmp_path, failed)
    assert not records.done(records.read(path))
    assert not records.done(None)
    records.write(tmp_path, ok)
    assert records.done(records.read(path))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("row", None, "row is None"),
        ("seed", True, "seed is True"),
        ("status", "done", "status is 'done'"),
        ("error", None, "a failed run needs an error"),
        ("error", {"kind": "X"}, "a failed run needs an error"),
    ],
)
def test_an_incomplete_failed_record_is_not_written(tmp_path: Path, path: str, value: Any, words: str) -> None:
    record = make_failed()
    put(record, path, value)
    with pytest.raises(BenchError, match=re.escape(words)):
        records.write(tmp_path, record)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("data.fingerprint", None, "data.fingerprint is None"),
        ("parameters.total", 1.5, "parameters.total is 1.5"),
        ("flops.per_byte", {}, "flops.per_byte.total is None"),
        ("tasks.bpb.version", None, "tasks.bpb: a version is missing"),
        ("tasks.bpb.metrics.bpb.lower_is_better", None, "does not say whether lower is better"),
        ("tasks.bpb.metrics.bpb.documents", [], "has no documents"),
        ("tasks.bpb.metrics.bpb.documents", [["a", float("nan"), 3]], "['a', None, 3]"),
        ("tasks.bpb.metrics.bpb.documents", [["a", 1.0]], "wanted [id, total, count]"),
        ("tasks.bpb.metrics.bpb.documents", [["a", 1.0, 3], ["a", 1.0, 3]], "a document twice"),
    ],
)
def test_an_incomplete_record_is_not_written(tmp_path: Path, path: str, value: Any, words: str) -> None:
    record = make_record()
    put(record, path, value)
    with pytest.raises(BenchError, match=re.escape(words)):
        records.write(tmp_path, record)
    assert not list(tmp_path.rglob("*.json"))


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = records.write(tmp_path, make_record(documents=3))
    whole = path.read_bytes()
    expected = records.read(path)
    rng = np.random.default_rng(0)
    for at in rng.choice(len(whole), 300, replace=False):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            got = records.read(path)
        except BenchError as error:
            assert str(path) in str(error)  # noqa: PT017  either outcome is right, but not a third one
        else:
            assert got == expected, "a flipped byte changed a value"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda t: t[: len(t) // 2], "is damaged"),
        (lambda t: "", "is damaged"),
        (lambda t: t.replace('"seed": 0', '"seed": 1'), "does not have its checksum"),
        (lambda t: t.replace('"error": null', '"error": NaN'), "is damaged"),
        (lambda t: t.replace('"error": null', '"error": 1e999'), "is damaged"),
        (lambda t: "\udcff" + t, "is damaged"),
        (lambda t: "[" * 100_000, "is damaged"),
        (lambda t: "[1, 2]", "is not a record of patchbench"),
        (lambda t: '{"a": 1}', "is not a record of patchbench"),
        (lambda t: t.replace('"schema": 1', '"schema": 3'), "has schema 3"),
    ],
)
def test_what_is_not_a_whole_record_is_named_with_what_to_do(tmp_path: Path, damage: Any, words: str) -> None:
    path = records.write(tmp_path, make_record(documents=3))
    path.write_bytes(damage(path.read_text("utf-8")).encode("utf-8", "surrogateescape"))
    with pytest.raises(BenchError, match=words) as caught:
        records.read(path)
    assert str(path) in str(caught.value)
    assert re.search("delete it|move it", str(caught.value))
    with pytest.raises(BenchError, match=words):
        records.load_all(tmp_path, "quick")


def test_a_reformatted_record_is_still_whole(tmp_path: Path) -> None:
    path = records.write(tmp_path, make_record())
    expected = records.read(path)
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), indent=4), "utf-8")
    assert records.read(path) == expected


def test_a_renamed_record_is_refused(tmp_path: Path) -> None:
    path = records.write(tmp_path, make_record())
    path.rename(path.with_name("stride-s0-000000000000.json"))
    with pytest.raises(BenchError, match="a copy or renamed"):
        records.load_all(tmp_path, "quick")


def test_load_all_is_in_the_order_of_rows_and_seeds(tmp_path: Path) -> None:
    assert records.load_all(tmp_path, "quick") == []
    for row, index in (("zebra", 0), ("ant", 1), ("new", None)):
        for seed in (10, 2):
            record = make_record(row, seed, documents=3)
            records.write(tmp_path, record if index is None else {**record, "row_index": index})
    got = records.load_all(tmp_path, "quick")
    assert [(r["row"], r["seed"]) for r in got] == [
        *(("zebra", 2), ("zebra", 10), ("ant", 2), ("ant", 10)),
        *(("new", 2), ("new", 10)),
    ]
    wanted = {got[0]["run_id"], "not-there"}
    assert [r["run_id"] for r in records.load_all(tmp_path, "quick", wanted)] == [got[0]["run_id"]]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "quick").write_text("a file where the folder should be")
    with pytest.raises(BenchError, match=r"cannot write .*quick.*--results"):
        records.write(tmp_path, make_record())
    with (
        pytest.raises(BenchError, match=r"cannot write .*quick.*--results"),
        records.claim(tmp_path, "quick", "a-s0-1"),
    ):
        pass


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = records.write(tmp_path, make_record())
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BenchError, match="No space left on device"):
        records.write(tmp_path, make_record(bpb=2.0))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_file_is_replaced_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"newer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"newer"


# --- claims

OWNER = """
    import sys, time
    from pathlib import Path
    from bench import records
    with records.claim(Path(sys.argv[1]), "quick", "a-s0-1") as mine:
        print(mine, flush=True)
        time.sleep(60)
"""


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_claim_is_exclusive_and_ends_with_its_block(tmp_path: Path) -> None:
    with records.claim(tmp_path, "quick", "a-s0-1") as first:
        assert first
        with records.claim(tmp_path, "quick", "a-s0-1") as second:
            assert not second
        with records.claim(tmp_path, "quick", "b-s0-1") as other:
            assert other
    with suppress(KeyError), records.claim(tmp_path, "quick", "a-s0-1") as again:
        assert again
        raise KeyError
    with records.claim(tmp_path, "quick", "a-s0-1") as again:
        assert again


def test_a_claim_can_be_waited_for(tmp_path: Path) -> None:
    entered = threading.Event()

    def hold() -> None:
        with records.claim(tmp_path, "quick", "a-s0-1"):
            entered.set()
            threading.Event().wait(0.3)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait()
    with records.claim(tmp_path, "quick", "a-s0-1", wait=30) as mine:
        assert mine
    holder.join()


def test_a_claim_is_free_when_its_owner_was_killed(tmp_path: Path) -> None:
    runs = tmp_path / "quick" / "runs"
    runs.mkdir(parents=True)
    half, other = runs / "a-s0-1.json.99-ab.tmp", runs / "b-s0-1.json.99-ab.tmp"
    with python(OWNER, str(tmp_path)) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "True\n"
        half.write_text("{")
        other.write_text("{")
        with records.claim(tmp_path, "quick", "a-s0-1") as mine:
            assert not mine
        assert half.exists(), "it is the owner's"
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    with records.claim(tmp_path, "quick", "a-s0-1") as mine:
        assert mine
        assert not half.exists(), "what a killed writer left is cleared away"
        assert other.exists()


def test_two_processes_share_the_runs_and_repeat_none(tmp_path: Path) -> None:
    worker = """
        import sys, time
        from pathlib import Path
        sys.path.insert(0, "tests")
        from record_builder import make_record
        from bench import records
        results = Path(sys.argv[1])
        for seed in range(8):
            record = make_record("stride", seed, documents=3)
            with records.claim(results, "quick", record["run_id"]) as mine:
                if mine and not records.done(records.find(results, "quick", record["run_id"])):
                    time.sleep(0.05)
                    records.write(results, record)
                    print(seed, flush=True)
    """
    workers = [python(worker, str(tmp_path)) for _ in range(2)]
    did = [process.communicate()[0].split() for process in workers]
    assert [process.returncode for process in workers] == [0, 0]
    assert sorted(did[0] + did[1], key=int) == [str(seed) for seed in range(8)]
    assert len(records.load_all(tmp_path, "quick")) == 8


# --- where it ran


def test_environment_says_what_ran_where(monkeypatch: pytest.MonkeyPatch) -> None:
    got = records.environment()
    assert got["python"] == ".".join(map(str, sys.version_info[:3]))
    assert got["numpy"] == np.__version__
    assert got["torch"].split("+")[0].count(".") == 2
    assert got["threads"] >= 1
    assert got["device"] == got["cpu"] != ""
    assert set(got) >= {"patchbench", "platform", "commit", "dirty"}
    json.dumps(got, allow_nan=False)
    monkeypatch.setenv("PATH", "")
    assert records.environment()["commit"] is None, "no git, no commit"


def test_the_commit_is_that_of_our_own_repository(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "bench" / "records").mkdir(parents=True)
    code = tmp_path / "bench" / "records" / "record.py"
    code.write_text("1")
    assert record_module._code_state(tmp_path) == {"commit": None, "dirty": None}
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "somebody's own project")
    assert record_module._code_state(tmp_path) == {"commit": None, "dirty": None}
    git("add", ".")
    git("commit", "-q", "-m", "ours")
    assert record_module._code_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "results.json").write_text("runs do not make the code dirty")
    assert record_module._code_state(tmp_path)["dirty"] is False
    code.write_text("2")
    assert record_module._code_state(tmp_path)["dirty"] is True
