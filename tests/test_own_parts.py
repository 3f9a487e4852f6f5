"""Every part that may be swapped, swapped from YAML by a class that is none of ours."""

import importlib
import json
import sys
import textwrap

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lit_llm.checkpoint.find import checkpoints

SOURCE = '''
    """A user's own parts, in a file that lit-llm knows nothing of."""

    import hashlib
    import json
    from dataclasses import dataclass

    import torch
    import torch.nn.functional as F
    from torch import nn

    from lit_llm.data.batch import IGNORE
    from lit_llm.data.corpus import Corpus, Text, Unit
    from lit_llm.model.attention import Attention
    from lit_llm.model.layout import Layout
    from lit_llm.objective import LossSums, Objective
    from lit_llm.optim import Schedule
    from lit_llm.tokenizer import Tokenizer
    from lit_llm.tokenizer.base import SPECIAL


    class Average(Attention):
        """Every token takes the mean of those that it sees; needs no queries and no keys."""

        def __init__(self, config, layer, scale: float = 1.0):
            super().__init__()
            self.scale = scale
            self.heads, self.channels = config.kv_heads, config.channels_per_head
            self.values = nn.Linear(config.d_model, self.heads * self.channels, bias=False)
            self.out = nn.Linear(self.heads * self.channels, config.d_model, bias=False)

        def forward(self, x_BTD, rope, layout, cache):
            v = self.values(x_BTD).unflatten(-1, (self.heads, self.channels)).transpose(1, 2)
            if cache is not None:
                cache.write(v, v, layout.positions_BT)
            seen = v if cache is None else cache.v_BKSE
            visible = layout.mask_B1TS
            if visible is None:
                visible = torch.ones(v.size(2), seen.size(2), dtype=torch.bool).tril()
            q, k = torch.zeros_like(v), torch.zeros_like(seen)
            mixed = F.scaled_dot_product_attention(q, k, seen, attn_mask=visible)
            return self.out(mixed.transpose(1, 2).flatten(-2)) * self.scale


    class Squared(nn.Module):
        def __init__(self, config, layer):
            super().__init__()
            self.up = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
            self.down = nn.Linear(3 * config.d_model, config.d_model, bias=False)

        def forward(self, x_BTD):
            return self.down(self.up(x_BTD).relu().square())


    class Bytes(Tokenizer):
        """One id per byte, behind the control tokens."""

        def __init__(self, upper: bool = False):
            self.upper = upper

        vocab_size = property(lambda self: len(SPECIAL) + 256)
        special = property(lambda self: {name: id for id, name in enumerate(SPECIAL)})
        fingerprint = property(lambda self: hashlib.sha256(repr(self.upper).encode()).hexdigest())

        def encode(self, text):
            text = text.upper() if self.upper else text
            return [len(SPECIAL) + byte for byte in text.encode()]

        def token_bytes(self, id):
            return bytes([id - len(SPECIAL)]) if id >= len(SPECIAL) else b""

        def save(self, folder):
            (folder / "bytes.json").write_text(json.dumps({"upper": self.upper}))

        @classmethod
        def load(cls, folder):
            return cls(**json.loads((folder / "bytes.json").read_text()))


    class Sign(torch.optim.Optimizer):
        """Every weight moves by exactly lr, whatever its gradient's size."""

        def __init__(self, params, lr: float = 1.0):
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure=None):
            loss = None if closure is None else torch.enable_grad()(closure)()
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad.sign() * group["lr"])
            return loss


    @dataclass(frozen=True)
    class Halves(Schedule):
        """Half the rate at every step."""

        first: float = 1.0

        def __call__(self, step, total_steps):
            return self.first / 2**step


    @dataclass(frozen=True)
    class Count(Unit):
        upto: int
        name = "count"

        def fingerprint(self):
            return f"count-{self.upto}"

        def read(self):
            for n in range(self.upto):
                yield Text(f"{n} and one is {n + 1}. " * 3, f"count:{n}")


    class Counting(Corpus):
        def __init__(self, upto: int):
            self.upto = upto

        def units(self):
            return [Count(self.upto)]


    class Smooth(Objective):
        """Next-token prediction with smoothed labels."""

        def __init__(self, smoothing: float = 0.1):
            self.smoothing = smoothing

        def __call__(self, gpt, batch, generator=None):
            logits_BTV = gpt(batch.tokens_BT, Layout.packed(batch.documents_BT, batch.positions_BT))
            loss = F.cross_entropy(
                logits_BTV.flatten(0, 1),
                batch.labels_BT.flatten(),
                ignore_index=IGNORE,
                reduction="sum",
                label_smoothing=self.smoothing,
            )
            return LossSums(loss, (batch.labels_BT != IGNORE).sum(), batch.labels_BT)

        def has_targets(self, batch):
            return bool((batch.labels_BT != IGNORE).any())
'''


@pytest.fixture(scope="module", autouse=True)
def theirs(tmp_path_factory):
    """The user's file, importable as a file beside cli.py is."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "their_parts.py").write_text(textwrap.dedent(SOURCE))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        yield
    sys.modules.pop("their_parts", None)


@pytest.fixture
def fit(tiny_fit, tmp_path):
    """Fits the shrunk quickstart with a further file; gives the folder of the last checkpoint."""

    def fit(values: dict, *arguments: str):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
        finished = tiny_fit(
            "quickstart/pretrain.yaml",
            tmp_path,
            *("-c", tmp_path / "mine.yaml", "--run", "own", *arguments),
        )
        assert finished.code == 0, finished.err
        return checkpoints(tmp_path / "own")[-1]

    return fit


@pytest.fixture
def answers(cli, tmp_path):
    """Answers of a checkpoint that is given without any configuration."""

    def ask(folder, prompt: str) -> str:
        file = tmp_path / "answers.jsonl"
        arguments = ["--data.prompts", json.dumps([prompt]), "--sampling.max_new_tokens", "5"]
        finished = cli(
            *("predict", "--ckpt_path", folder, "--output", file, *arguments),
            *("--sampling.temperature", "0"),
        )
        assert finished.code == 0, finished.err
        return json.loads(file.read_text().splitlines()[0])["text"]

    return ask


def own(name: str, **init_args):
    return {"class_path": f"their_parts.{name}", "init_args": init_args}


def description(folder) -> dict:
    return json.loads((folder / "bundle.json").read_text())


def test_attention_and_what_it_was_given_go_into_the_checkpoint(fit, answers):
    folder = fit({"model": {"gpt": {"attention": own("Average", scale=0.5)}}})
    assert description(folder)["model"]["attention"] == own("Average", scale=0.5)
    weights = load_file(folder / "model.safetensors")
    assert "blocks.1.attn.values.weight" in weights
    assert not any("q_proj" in name for name in weights)
    assert isinstance(answers(folder, "Anna is"), str)


def test_the_class_of_a_part_can_be_given_by_a_flag(fit):
    folder = fit({}, "--model.gpt.attention=their_parts.Average", "--trainer.max_steps=1")
    assert description(folder)["model"]["attention"]["class_path"] == "their_parts.Average"


def test_mlp(fit, answers):
    folder = fit({"model": {"gpt": {"mlp": "their_parts.Squared"}}})
    assert load_file(folder / "model.safetensors")["blocks.0.mlp.up.weight"].shape == (96, 32)
    assert isinstance(answers(folder, "Anna is"), str)


def test_tokenizer(fit, answers):
    folder = fit({"data": {"init_args": {"tokenizer": own("Bytes", upper=True)}}})
    assert description(folder)["model"]["vocab_size"] == 8 + 256
    assert json.loads((folder / "bytes.json").read_text()) == {"upper": True}
    assert len(answers(folder, "Anna is").encode()) <= 5 * 3  # a byte, or U+FFFD for half a letter


def test_optimizer(fit):
    # sign descent: with the schedule below, no weight moves further than 2 * lr in all
    folder = fit(
        {"model": {"optimizer": own("Sign", lr=0.01), "schedule": None, "groups": None}},
        "--trainer.max_steps=1",
        "--trainer.gradient_clip_val=0",
    )
    norm = load_file(folder / "model.safetensors")["norm.weight"]
    assert torch.allclose((norm - 1).abs(), torch.full_like(norm, 0.01))


def test_schedule(fit):
    values = {"model": {"optimizer": own("Sign", lr=0.01), "schedule": own("Halves", first=0.5)}}
    folder = fit(values, "--trainer.max_steps=3", "--trainer.log_every_n_steps=1")
    state = torch.load(folder / "training.ckpt", weights_only=True)
    groups = {group["kind"]: group["lr"] for group in state["optimizer_states"][0]["param_groups"]}
    assert groups["matrix"] == pytest.approx(0.01 * 0.5 / 2**3)  # that of the step to come


def test_corpus(fit):
    values = {"corpus": own("Counting", upto=200), "tokenizer": {"init_args": {"vocab_size": 290}}}
    folder = fit({"data": {"init_args": values}})
    assert description(folder)["data"]["parts"]["corpus"]["corpus"] == "their_parts.Counting"


def test_objective(fit, answers):
    folder = fit({"model": {"objective": own("Smooth", smoothing=0.25)}})
    assert description(folder)["objective"] == own("Smooth", smoothing=0.25)
    assert isinstance(answers(folder, "Anna is"), str)


def test_a_checkpoint_whose_part_is_gone_says_which_class_it_needs(fit, cli, monkeypatch):
    folder = fit({"model": {"gpt": {"mlp": "their_parts.Squared"}}}, "--trainer.max_steps=1")
    monkeypatch.setitem(sys.modules, "their_parts", None)  # as if it could not be found
    finished = cli("predict", "--ckpt_path", folder, "--data.prompts", '["x"]')
    assert finished.code == 2
    assert "their_parts.Squared" in finished.err
    assert len(finished.err.splitlines()) <= 3
