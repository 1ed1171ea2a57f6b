"""Where pretrained models are looked for, what they are called, and what is said where there is none."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pretrained_models as tiny
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from bench.evaluation.pretrained.config import PretrainedConfig, check_installed, locate
from bench.evaluation.pretrained.load import load
from patchers.errors import BenchError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpt2")
    tiny.save_gpt2(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_a_model_is_what_its_files_hold_wherever_they_lie(folder: Path, tmp_path: Path) -> None:
    before = locate(PretrainedConfig(str(folder)))
    elsewhere = shutil.copytree(folder, tmp_path / "other" / "model")
    assert locate(PretrainedConfig(str(elsewhere))).identity() == before.identity()
    assert str(tmp_path) not in json.dumps(before.identity())
    (folder / "README.md").write_text("no part of the model")
    assert locate(PretrainedConfig(str(folder))) == before
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert locate(PretrainedConfig(str(folder))).fingerprint != before.fingerprint


def test_options_are_part_of_what_a_run_is(saved: Path) -> None:
    one = locate(PretrainedConfig(str(saved))).identity()
    assert locate(PretrainedConfig(str(saved), bos="none")).identity() == one | {"bos": "none"}
    assert locate(PretrainedConfig(str(saved), byte_offset=3)).identity() == one | {"byte_offset": 3}
    assert locate(PretrainedConfig(str(saved), download=True)).identity() == one


@pytest.mark.parametrize("download", [False, True])
def test_nothing_is_fetched_unless_it_is_asked_for(
    saved: Path, download: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    found = locate(PretrainedConfig("some/model", revision="main", download=download))
    assert found.identity()["hf"] == "some/model"
    ((name, options),) = asked
    assert name == "some/model"
    assert options["local_files_only"] is not download
    assert options["revision"] == "main"


def test_a_name_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(name: str, **options: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    where = "'some/model' is neither a folder nor a model in the Hugging Face cache of this machine"
    with pytest.raises(BenchError, match=f"{where}: give the folder of a saved model, or let it be fetched with"):
        locate(PretrainedConfig("some/model"))
    with pytest.raises(BenchError, match=f"{where}, and it cannot be fetched .no connection."):
        locate(PretrainedConfig("some/model", download=True))


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="is neither a folder nor a model in the Hugging Face cache"):
        locate(PretrainedConfig(str(tmp_path / "missing" / "model")))
    with pytest.raises(BenchError, match=r"has no config\.json, so no model that `save_pretrained`"):
        locate(PretrainedConfig(str(tmp_path)))
    with pytest.raises(BenchError, match="a revision is for the name of a model"):
        locate(PretrainedConfig(str(tmp_path), revision="main"))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "bench.evaluation.pretrained.config.find_spec", lambda name: None if name == "transformers" else found(name)
    )
    with pytest.raises(BenchError, match=r"needs the package transformers, which is not installed: pip install 'patc"):
        check_installed()


def test_files_that_are_no_language_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "nothing-known"}')
    with pytest.raises(BenchError, match=r"transformers cannot load .* as a causal language model"):
        load(locate(PretrainedConfig(str(folder))), 64, CPU)


def test_code_that_lies_beside_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: pass\n")
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BenchError, match=r"transformers cannot load .* as a causal language model: .*custom code"):
        load(locate(PretrainedConfig(str(folder))), 64, CPU)
    assert not ran.exists()


def test_damaged_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(BenchError, match=r"transformers cannot load .* as a causal language model"):
        load(locate(PretrainedConfig(str(folder))), 64, CPU)


def test_weights_that_are_missing_would_be_random(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.0.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BenchError, match=r"lack 1 weights of its model, transformer\.h\.0\.mlp\.c_fc\.weight first"):
        load(locate(PretrainedConfig(str(folder))), 64, CPU)


def test_a_model_without_a_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BenchError, match="makes no token of any text: save it beside the model; for one over bytes"):
        load(locate(PretrainedConfig(str(folder))), 64, CPU)


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    tiny.save_tokenizer(folder, tiny.bpe(340), bos_token=tiny.END)
    with pytest.raises(BenchError, match=r"its tokenizer has ids up to 3[34]., and its model 320 outputs"):
        load(locate(PretrainedConfig(str(folder))), 64, CPU)


def test_a_bos_that_is_no_token(saved: Path) -> None:
    with pytest.raises(BenchError, match="its tokenizer knows no token '<bos>'; wanted auto, none or a token"):
        load(locate(PretrainedConfig(str(saved), bos="<bos>")), 64, CPU)
    with pytest.raises(BenchError, match="with byte_offset there is no tokenizer that knows the token '<bos>'"):
        load(locate(PretrainedConfig(str(saved), bos="<bos>", byte_offset=3)), 64, CPU)


def test_a_bos_that_a_tokenizer_would_take_for_its_unknown_token(folder: Path) -> None:
    tiny.save_tokenizer(folder, tiny.bpe(), bos_token=tiny.END, unk_token=tiny.END)
    with pytest.raises(BenchError, match="its tokenizer knows no token '<bos>'; wanted auto, none or a token"):
        load(locate(PretrainedConfig(str(folder), bos="<bos>")), 64, CPU)
    named = load(locate(PretrainedConfig(str(folder), bos=tiny.END)), 64, CPU)
    assert named.vocabulary.bos == load(locate(PretrainedConfig(str(folder))), 64, CPU).vocabulary.bos


@pytest.mark.parametrize(("bos", "eos", "before"), [(3, 4, 3), (None, 4, 4), (None, [5, 4], 5), (None, None, None)])
def test_what_stands_before_a_text_of_a_model_without_a_tokenizer(
    folder: Path, bos: int | None, eos: int | list[int] | None, before: int | None
) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bos_token_id": bos, "eos_token_id": eos}))
    found = load(locate(PretrainedConfig(str(folder), byte_offset=3)), 64, CPU).vocabulary
    assert found.bos == before
    assert load(locate(PretrainedConfig(str(folder), bos="none", byte_offset=3)), 64, CPU).vocabulary.bos is None


def test_a_tokenizer_that_is_cut_off_or_padded_by_its_file(folder: Path) -> None:
    """A tokenizer.json may say that texts are truncated to a length: documents are not."""
    tokenizer = tiny.bpe()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)
    tiny.save_tokenizer(folder, tokenizer, bos_token=tiny.END)
    model = load(locate(PretrainedConfig(str(folder))), 64, CPU)
    plain = tiny.bpe().encode(tiny.TEXT).ids
    assert model.vocabulary.encode([tiny.TEXT.encode()])[0].ids.tolist() == plain


def test_the_library_is_imported_only_where_such_a_row_is() -> None:
    code = "import sys, bench.execution.run; print({'transformers', 'huggingface_hub'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
