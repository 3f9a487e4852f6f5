import json
import shutil
from pathlib import Path

import pytest

from lit_llm.checkpoint.base import describe_base, find_base, fingerprint, refuse_other_base
from lit_llm.checkpoint.bundle import load_bundle, read_meta, write_bundle
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.manifest import CheckpointError, listed, verify


def found(folder: Path, given: Path | None = None) -> Path:
    return find_base(folder, read_meta(folder), given).resolve()


def test_a_checkpoint_of_adapters_holds_nothing_else_and_names_its_base(adapted):
    verify(adapted.folder)
    meta = json.loads((adapted.folder / "bundle.json").read_text())
    assert meta["base"]["path"] == "../../base/step-00000002"
    assert meta["base"]["absolute"] == str(adapted.base)
    # what sha256sum says of the file
    assert meta["base"]["sha256"] == listed(adapted.base)["model.safetensors"]["sha256"]
    assert meta["format"] == 2  # a reader of format 1 would look for model.safetensors
    assert not (adapted.folder / "model.safetensors").exists()
    weights = sum(p.numel() * 4 for n, p in adapted.gpt.named_parameters() if "lora" not in n)
    files = [path for path in adapted.folder.iterdir() if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in files) < weights / 2


def test_a_tree_of_runs_that_is_moved_stays_whole(adapted, tmp_path):
    shutil.move(tmp_path / "base", tmp_path / "elsewhere/base")
    shutil.move(tmp_path / "lora", tmp_path / "elsewhere/lora")
    folder = tmp_path / "elsewhere/lora/step-00000004"
    assert found(folder) == tmp_path / "elsewhere/base/step-00000002"
    load_bundle(folder)


def test_a_checkpoint_that_is_moved_alone_finds_its_base_where_it_was(adapted, tmp_path):
    alone = tmp_path / "deep/er/alone"
    shutil.copytree(adapted.folder, alone)
    assert found(alone) == adapted.base


def test_a_base_that_is_moved_alone_is_found_where_it_is_said_to_be(adapted, tmp_path):
    shutil.move(tmp_path / "base", tmp_path / "there")
    assert found(adapted.folder, tmp_path / "there/step-00000002").parent == tmp_path / "there"


def test_a_missing_base_is_one_line(adapted, tmp_path):
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(CheckpointError, match="holds adapters, and their base is neither at") as e:
        load_bundle(adapted.folder)
    assert str(e.value).endswith("put it back there")
    assert str(adapted.base) in str(e.value)
    assert len(str(e.value).splitlines()) == 1


def write_again(adapted, add: float) -> None:
    bundle = load_bundle(adapted.base)
    state = {name: tensor + add for name, tensor in bundle.state.items()}
    shutil.rmtree(adapted.base)
    write_folder(adapted.base, lambda inner: write_bundle(inner, bundle.meta, state, None))


def test_other_weights_under_the_name_of_the_base_are_refused(adapted):
    write_again(adapted, 0.0)
    load_bundle(adapted.folder)  # the same again
    write_again(adapted, 1e-6)
    with pytest.raises(CheckpointError, match="adapters of other weights than those of") as error:
        load_bundle(adapted.folder)
    assert len(str(error.value).splitlines()) <= 3


def test_a_base_whose_content_has_changed_under_its_manifest_is_refused(adapted):
    path = adapted.base / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_bundle(adapted.folder)


def test_adapters_over_adapters_are_known_by_all_that_they_are_made_of(save_lora, tmp_path):
    first = save_lora(tmp_path / "a")
    second = save_lora(tmp_path / "b", tie_embeddings=True)
    assert fingerprint(first.folder) != fingerprint(first.base)
    assert fingerprint(first.folder) != fingerprint(second.folder)
    before = fingerprint(first.folder)
    meta = read_meta(first.folder)
    meta["base"]["sha256"] = "0" * 64  # the same adapters over other weights
    state = {n: w for n, w in first.gpt.state_dict().items() if "lora" in n}
    shutil.rmtree(first.folder)
    write_folder(first.folder, lambda inner: write_bundle(inner, meta, state, None))
    assert fingerprint(first.folder) != before


def test_adapters_do_not_meet_other_weights_than_their_own(adapted, save_lora, tmp_path):
    meta = read_meta(adapted.folder)
    refuse_other_base(meta, adapted.base)
    other = save_lora(tmp_path / "other", n_layer=3)
    with pytest.raises(CheckpointError, match="belong to other weights than those of"):
        refuse_other_base(meta, other.base)
    with pytest.raises(CheckpointError, match="holds whole weights and no adapters"):
        refuse_other_base(read_meta(adapted.base), adapted.base)


def test_a_folder_without_weights_is_no_base(tmp_path):
    write_folder(tmp_path / "empty", lambda inner: None)
    with pytest.raises(CheckpointError, match="holds no weights"):
        describe_base(tmp_path / "empty")
