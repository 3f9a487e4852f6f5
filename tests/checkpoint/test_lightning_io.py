import json
import os
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_llm.checkpoint.bundle import load_model
from lit_llm.checkpoint.find import checkpoints, resolve
from lit_llm.checkpoint.lightning_io import FolderCheckpointIO
from lit_llm.checkpoint.manifest import CheckpointError, is_complete, seal, verify
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.checkpoint.sharded_io import OneRank, save_distributed
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT

CONFIG = GPTConfig(
    vocab_size=11, max_seq_len=7, n_layer=2, d_model=12, n_head=2, d_ff=5, tie_embeddings=True
)
FILES = ["bundle.json", "manifest.json", "model.safetensors", "training.ckpt"]
TOKENIZER_FILES = ["alphabet.txt", "tokenizer_class.json"]


class FolderCheckpoint(ModelCheckpoint):
    """Lightning's own logic, with names that have no extension: folders."""

    FILE_EXTENSION = ""


class Tiny(L.LightningModule):
    """A GPT and a weight outside it; data is a function of the step, so a resume can be exact."""

    def __init__(self, tokenizer=None, bundled: bool = True) -> None:
        super().__init__()
        self.gpt = GPT(CONFIG)
        self.outside = nn.Linear(1, 1)
        self.tokenizer, self.bundled = tokenizer, bundled

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.global_step)
        tokens_BT = torch.randint(CONFIG.vocab_size, (3, 7), generator=generator)
        return self.outside(self.gpt(tokens_BT)[..., :1]).square().mean()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        if self.bundled:
            bundle = {"model": gpt_to_plain(CONFIG), "step": self.global_step}
            checkpoint["lit_llm"] = {"bundle": bundle, "tokenizer": self.tokenizer}


def _trainer(run: Path, steps: int, *callbacks: L.Callback, **settings) -> L.Trainer:
    keep = FolderCheckpoint(
        run, "step-{step:08d}", auto_insert_metric_name=False, every_n_train_steps=1, **settings
    )
    return L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[keep, *callbacks],
        plugins=[FolderCheckpointIO()],
    )


def _fit(run: Path, steps: int, model: Tiny, ckpt_path: Path | None = None, **settings) -> Tiny:
    trainer = _trainer(run, steps, **settings)
    trainer.fit(model, DataLoader(range(100)), ckpt_path=ckpt_path)
    return model


def _model(**arguments) -> Tiny:
    torch.manual_seed(4)
    return Tiny(**arguments)


@pytest.fixture
def tokenizer(theirs):
    return theirs.Letters("abcdefghijk")


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, tokenizer):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    uninterrupted = _fit(whole, 4, _model(tokenizer=tokenizer))
    _fit(parts, 2, _model(tokenizer=tokenizer))
    resumed = _fit(parts, 4, Tiny(tokenizer=tokenizer), ckpt_path=parts / "step-00000002")
    for name, tensor in uninterrupted.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    states = [FolderCheckpointIO().load_checkpoint(run / "step-00000004") for run in (whole, parts)]
    for key in ("optimizer_states", "lr_schedulers"):
        assert str(states[0][key]) == str(states[1][key])
    first, second = (state["optimizer_states"][0]["state"] for state in states)
    for index, moments in first.items():
        assert all(torch.equal(moments[name], second[index][name]) for name in moments)
    assert resumed.gpt.lm_head.weight is resumed.gpt.embed.weight


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_is_a_folder_with_the_files_that_the_page_lists(tmp_path, tokenizer):
    model = _fit(tmp_path, 2, _model(tokenizer=tokenizer))
    folder = tmp_path / "step-00000002"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, *TOKENIZER_FILES])
    for path in folder.iterdir():
        for page in ("docs/checkpoints.md", "checkpoints/README.md"):
            if path.name != "alphabet.txt":
                assert path.name in (Path(__file__).parents[2] / page).read_text()
    gpt, bundle = load_model(folder)
    tokens_BT = torch.tensor([[1, 10, 4]])
    assert torch.equal(gpt(tokens_BT), model.gpt.eval()(tokens_BT))
    assert bundle.tokenizer.encode("jab") == [9, 0, 1]
    assert bundle.meta["step"] == 2


@pytest.mark.filterwarnings("ignore")
def test_lightnings_dict_comes_back_as_it_was(tmp_path, tokenizer):
    model = _model(tokenizer=tokenizer)
    trainer = _trainer(tmp_path, 2)
    trainer.fit(model, DataLoader(range(100)))
    saved = trainer._checkpoint_connector.dump_checkpoint()
    loaded = FolderCheckpointIO().load_checkpoint(tmp_path / "step-00000002")
    assert loaded.keys() == saved.keys()
    assert loaded["state_dict"].keys() == saved["state_dict"].keys()
    for name, tensor in saved["state_dict"].items():
        assert torch.equal(loaded["state_dict"][name], tensor), name
    assert loaded["global_step"] == 2
    assert loaded["lit_llm"]["bundle"] == {**saved["lit_llm"]["bundle"], "format": 1}
    assert loaded["lit_llm"]["tokenizer"].alphabet == tokenizer.alphabet


@pytest.mark.filterwarnings("ignore")
def test_no_weight_of_the_network_is_stored_twice(tmp_path, tokenizer):
    _fit(tmp_path, 1, _model(tokenizer=tokenizer))
    training = torch.load(tmp_path / "step-00000001" / "training.ckpt", weights_only=True)
    assert sorted(training["state_dict"]) == ["outside.bias", "outside.weight"]
    assert "lit_llm" not in training


@pytest.mark.filterwarnings("ignore")
def test_a_module_without_a_bundle_goes_to_training_ckpt(tmp_path):
    whole = _fit(tmp_path / "whole", 3, _model(bundled=False))
    _fit(tmp_path / "parts", 1, _model(bundled=False))
    folder = tmp_path / "parts" / "step-00000001"
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "training.ckpt"]
    resumed = _fit(tmp_path / "parts", 3, Tiny(bundled=False), ckpt_path=folder)
    assert torch.equal(resumed.gpt.embed.weight, whole.gpt.embed.weight)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("top", "left"), [(1, [4]), (-1, [1, 2, 3, 4])])
def test_model_checkpoint_keeps_as_many_folders_as_asked(tmp_path, top, left):
    _fit(tmp_path, 4, _model(), save_top_k=top)
    assert [path.name for path in checkpoints(tmp_path)] == [f"step-{n:08d}" for n in left]
    assert all(is_complete(folder) for folder in checkpoints(tmp_path))
    assert len(list(tmp_path.iterdir())) == len(left)  # nothing half removed


@pytest.mark.filterwarnings("ignore")
def test_a_link_to_the_last_checkpoint_is_kept_beside_it(tmp_path):
    _fit(tmp_path, 3, _model(), save_last="link")
    assert (tmp_path / "last").is_symlink()
    assert (tmp_path / "last").resolve() == tmp_path / "step-00000003"
    verify(tmp_path / "last")
    assert resolve("last", tmp_path) == tmp_path / "step-00000003"


@pytest.mark.filterwarnings("ignore")
def test_saving_twice_under_one_name_replaces_the_first(tmp_path):
    trainer = _trainer(tmp_path / "run", 2)
    trainer.fit(_model(), DataLoader(range(100)))
    for _ in range(2):
        trainer.save_checkpoint(tmp_path / "mine")
    verify(tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "run"]


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_checkpoint_does_not_start_a_run(tmp_path):
    _fit(tmp_path, 1, _model())
    path = tmp_path / "step-00000001" / "training.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"training\.ckpt is damaged"):
        _fit(tmp_path, 2, Tiny(), ckpt_path=tmp_path / "step-00000001")


def test_what_could_not_be_loaded_again_is_refused_at_the_save(tmp_path):
    checkpoint = {"state_dict": {}, "callbacks": {"mine": {"best": np.float64(0.5)}}}
    with pytest.raises(ValueError, match=r"(?s)holds numpy.*keep plain values") as error:
        FolderCheckpointIO().save_checkpoint(checkpoint, tmp_path / "step-00000001")
    assert str(error.value).count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_without_the_state_of_training_says_how_to_use_it(tmp_path):
    io = FolderCheckpointIO()
    io.save_checkpoint({"state_dict": {}}, tmp_path / "a")
    (tmp_path / "a" / "training.ckpt").unlink()
    (tmp_path / "a" / "manifest.json").unlink()
    seal(tmp_path / "a")  # as if somebody had published the weights alone
    with pytest.raises(CheckpointError, match=r"no training\.ckpt.*model\.init_from"):
        io.load_checkpoint(tmp_path / "a")


def test_removing_takes_folders_and_links_and_ignores_what_is_gone(tmp_path):
    io = FolderCheckpointIO()
    io.save_checkpoint({"state_dict": {}}, tmp_path / "a")
    (tmp_path / "link").symlink_to("a")
    io.remove_checkpoint(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    io.remove_checkpoint(tmp_path / "a")
    io.remove_checkpoint(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_tokenizer_class_is_named_in_the_folder(tmp_path, tokenizer):
    gpt = GPT(CONFIG)
    state = {f"gpt.{name}": tensor for name, tensor in gpt.state_dict().items()}
    ours = {"bundle": {"model": gpt_to_plain(CONFIG)}, "tokenizer": tokenizer}
    FolderCheckpointIO().save_checkpoint({"state_dict": state, "lit_llm": ours}, tmp_path / "a")
    named = json.loads((tmp_path / "a" / "tokenizer_class.json").read_text())
    assert named["class_path"] == "their_parts.Letters"


def test_a_checkpoint_that_cannot_be_removed_is_a_warning(tmp_path, monkeypatch):
    io = FolderCheckpointIO()
    io.save_checkpoint({"state_dict": {}}, tmp_path / "a")

    def fail(self, target):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.warns(UserWarning, match="the old checkpoint .*/a cannot be removed.*denied"):
            io.remove_checkpoint(tmp_path / "a")
    verify(tmp_path / "a")


def test_a_save_reads_nothing_that_it_wrote_but_the_tokenizers_files(tmp_path, tokenizer):
    """Of all opened files: the hash is computed while they are written."""
    read = set()
    recording = [True]

    def record(event, arguments):
        if event == "open" and recording and str(tmp_path) in str(arguments[0]):
            path, _, flags = arguments
            folder = flags & getattr(os, "O_DIRECTORY", 0) or Path(path).is_dir()
            if flags & (os.O_WRONLY | os.O_RDWR) != os.O_WRONLY and not folder:
                read.add(Path(path).name)

    sys.addaudithook(record)  # it stays for good, hence the switch
    gpt = GPT(CONFIG)
    state = {f"gpt.{name}": tensor for name, tensor in gpt.state_dict().items()}
    ours = {"bundle": {"model": gpt_to_plain(CONFIG)}, "tokenizer": tokenizer}
    checkpoint = {"state_dict": state, "lit_llm": ours, "optimizer_states": []}
    FolderCheckpointIO().save_checkpoint(checkpoint, tmp_path / "plain")
    save_distributed(checkpoint, tmp_path / "sharded", OneRank())
    assert read <= set(TOKENIZER_FILES)
    (tmp_path / "plain" / "bundle.json").read_bytes()
    assert "bundle.json" in read  # it does see what is read
    recording.clear()
