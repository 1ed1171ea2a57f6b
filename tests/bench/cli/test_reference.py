"""The page of suites says what the code reads."""

from __future__ import annotations

from pages import reference

from bench.suites.config import SuiteConfig, TrainConfig
from bench.system.yaml import keys_of


def test_the_page_of_suites_is_up_to_date() -> None:
    made = reference.page()
    assert reference.PAGE.read_text(encoding="utf-8") == made, "run PYTHONPATH=tests python -m pages.reference"


def test_every_key_is_there_with_its_type_and_default() -> None:
    page = reference.page()
    for cls in (SuiteConfig, TrainConfig):
        for field in keys_of(cls):
            assert f"\n| `{field.name}` | " in page
    assert "| `lr` | number > 0 | `0.009` | of matrices with 64 inputs" in page
    assert "| `data` | a section | required | where the text comes from" in page
    assert "| `folder` |" not in page, "which is no key"
