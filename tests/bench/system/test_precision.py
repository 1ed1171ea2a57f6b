"""`train.dtype: auto` is what the hardware multiplies quickly, and a run's name and record say which that was."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_suite import TRAIN, tiny_suite

from bench.suites import config
from bench.system import precision

ZEN4 = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 fma\n"
ZEN3 = "processor\t: 0\nflags\t\t: fpu avx2 fma\n"
GRAVITON3 = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n"


@pytest.mark.parametrize(
    ("told", "dtype"),
    [(ZEN4, "bfloat16"), (ZEN3, "float32"), (GRAVITON3, "bfloat16"), ("", "float32"), ("model name : bf16", "float32")],
)
def test_a_cpu_that_multiplies_bfloat16_trains_in_it(told: str, dtype: str) -> None:
    assert precision._of_cpu(told) == dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_auto_is_resolved_in_the_runs_identity(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "fast_dtype", lambda: dtype)
    train = {key: value for key, value in TRAIN.items() if key != "dtype"}
    suite = tiny_suite(tmp_path, train=train, rows={"stride": {"patcher": "stride", "train": {"lr": 1e-3}}})
    assert suite.run_config("stride")["train"]["dtype"] == dtype
    assert tiny_suite(tmp_path, "train.dtype=auto", train=train).run_config("stride")["train"]["dtype"] == dtype
    assert tiny_suite(tmp_path, "train.dtype=float32", train=train).run_config("stride")["train"]["dtype"] == "float32"
