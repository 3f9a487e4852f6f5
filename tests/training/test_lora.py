import copy
from dataclasses import replace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lit_llm.checkpoint.bundle import write_bundle
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.data.batch import Batch
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.lora import Lora, add_adapters, init_adapters, is_adapter
from lit_llm.training.divisible import check_divisible
from lit_llm.training.module import LitLLM

T, V = 7, 11
CONFIG = GPTConfig(vocab_size=V, max_seq_len=T, n_layer=2, d_model=12, n_head=3, d_ff=20)
LORA = Lora(rank=2, alpha=6.0, targets="all")


class Batches(L.LightningDataModule):
    """Stands in for TextData."""

    tokenizer = None
    token_bytes_V = torch.ones(V, dtype=torch.int32)
    dp_size, dp_rank, accumulate = 1, 0, 2
    nominal_tokens_per_step = 2 * 3 * T

    def train_dataloader(self) -> DataLoader:
        generator = torch.Generator().manual_seed(0)
        batches = []
        for _ in range(8):
            ids = torch.randint(V, (2, 3, T), generator=generator)
            places = torch.arange(T).expand(3, T).clone()
            batches.append(Batch(ids[0], ids[1], torch.zeros_like(ids[0]), places))
        return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


class Watch(L.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_start(self, trainer, pl_module):
        self.before = copy.deepcopy(pl_module.gpt.state_dict())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        if trainer.global_step:
            self.state = copy.deepcopy(trainer.optimizers[0].state_dict())

    def on_train_end(self, trainer, pl_module):
        self.after = copy.deepcopy(pl_module.gpt.state_dict())


@pytest.fixture
def base(tmp_path) -> str:
    gpt = GPT(CONFIG)
    init_weights(gpt, 1, 2)
    meta = {"model": gpt_to_plain(CONFIG)}
    write_folder(tmp_path / "base", lambda to: write_bundle(to, meta, gpt.state_dict(), None))
    return str(tmp_path / "base")


@pytest.fixture
def train(tmp_path, base):
    def train(lora=LORA, precision="32-true", lr=0.01, **settings) -> Watch:
        watch = Watch()
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=-1,
            max_steps=4,
            precision=precision,
            gradient_clip_val=1.0,
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch],
        )
        adamw = lambda groups: torch.optim.AdamW(groups, lr=lr)  # noqa: E731
        trainer.fit(
            LitLLM(CONFIG, optimizer=adamw, init_from=base, lora=lora, **settings), Batches()
        )
        return watch

    return train


def test_the_first_loss_is_that_of_the_base_and_then_it_falls(train):
    plain, adapted = train(lora=None), train(lr=0.1)
    assert adapted.losses[:2] == plain.losses[:2]  # both micro-batches of the first step
    assert adapted.losses[2:] != plain.losses[2:]
    still = train(lr=0.0)
    assert sum(adapted.losses[2:]) < sum(still.losses[2:])


def test_weights_stay_and_only_adapters_have_moments(train):
    watch = train()
    for name, weight in watch.before.items():
        assert torch.equal(watch.after[name], weight) != is_adapter(name), name
    moments = [state["exp_avg"].shape for state in watch.state["state"].values()]
    adapters = [weight.shape for name, weight in watch.before.items() if is_adapter(name)]
    assert moments == adapters
    assert len(moments) == 2 * 2 * 7


def test_activation_checkpointing_changes_no_bit(train):
    lora = replace(LORA, dropout=0.4)
    plain, again = train(lora), train(lora, activation_checkpointing=1)
    assert plain.losses == again.losses
    assert all(torch.equal(plain.after[name], again.after[name]) for name in plain.after)
    assert plain.losses != train(LORA).losses


def test_a_base_in_bfloat16_changes_no_bit_under_bf16_mixed(train):
    plain = train(precision="bf16-mixed")
    half = train(replace(LORA, base_dtype="bfloat16"), precision="bf16-mixed")
    assert plain.losses == half.losses
    for name, weight in plain.after.items():
        if is_adapter(name):
            assert torch.equal(half.after[name], weight)
    assert half.after["blocks.0.attn.q_proj.weight"].dtype == torch.bfloat16
    assert half.after["embed.weight"].dtype == torch.float32


def test_a_base_in_bfloat16_needs_products_of_bfloat16(train):
    with pytest.raises(ValueError, match=r"needs bf16-mixed.* got trainer\.precision=32-true"):
        train(replace(LORA, base_dtype="bfloat16"))


def test_adapters_of_random_weights_are_refused():
    with pytest.raises(ValueError, match=r"model\.init_from is null: give the checkpoint"):
        LitLLM(CONFIG, lora=LORA)


def test_what_a_checkpoint_holds_is_put_back_strictly(train, base):
    module = LitLLM(CONFIG, init_from=base, lora=LORA)
    module.gpt = GPT(CONFIG)
    add_adapters(module.gpt, LORA)
    init_adapters(module.gpt, 0)
    weights = {name: w + 1 for name, w in module.state_dict().items()}
    assert len(weights) == 2 * 2 * 7
    before = module.gpt.embed.weight.clone()
    module.load_state_dict(weights)
    assert torch.equal(module.gpt.blocks[1].mlp.up_proj.lora_B, torch.ones(20, 2))
    assert torch.equal(module.gpt.embed.weight, before)
    name = "gpt.blocks.0.attn.k_proj.lora_A"
    with pytest.raises(ValueError, match=f"{name} is missing"):
        module.load_state_dict({n: w for n, w in weights.items() if n != name})
    with pytest.raises(ValueError, match=r"gpt\.embed\.weight is unknown to the model"):
        module.load_state_dict({**weights, "gpt.embed.weight": before})


def test_dropout_of_adapters_is_refused_where_devices_split_matrices():
    with pytest.raises(ValueError, match=r"lora\.dropout=0\.1 with tensor_parallel=3"):
        check_divisible(
            replace(CONFIG, max_seq_len=6, d_ff=21, pad_vocab_to=3),
            3,
            lora=replace(LORA, dropout=0.1),
        )
