"""Networks, tokenizers and checkpoints that tests of the export make."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from lit_llm.checkpoint.bundle import write_bundle
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.gguf.byte_level import LLAMA3, QWEN2
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.tokenizer import HuggingFace, SentencePiece, Tokenizer

# Sizes all differ, two are no powers of two, and one matrix has rows of no whole blocks of Q8_0.
SIZES: dict[str, Any] = {"max_seq_len": 80, "n_layer": 2, "d_model": 96, "n_head": 6, "d_ff": 72}
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]


def corpus() -> list[str]:
    """Text and code of this repository, in which control tokens are typed as well."""
    root = Path(__file__).parents[3]
    pages = [*sorted(root.glob("docs/*.md")), *sorted(root.glob("lit_llm/tokenizer/*.py"))]
    return [page.read_text(encoding="utf-8") for page in pages]


def sentencepiece(vocab_size: int = 700, **settings: Any) -> SentencePiece:
    """One of our own."""
    return SentencePiece(vocab_size=vocab_size, **settings).train(corpus())


def byte_level(path: Path, kind: str = "gpt2", **added: Any) -> HuggingFace:
    """A tokenizer.json whose words are cut as those of a published one.

    Args:
        path: where to write it
        kind: gpt2, llama3, llama3-as-it-is (which takes words that are tokens unmerged), qwen2,
            smollm, few-bytes (as gpt2, but only with bytes of the text), or nothing (which cuts no
            words)
        added: of `HuggingFace`
    """
    last = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=kind in ("gpt2", "few-bytes", "smollm")
    )
    regex = {"llama3": LLAMA3, "llama3-as-it-is": LLAMA3, "qwen2": QWEN2}.get(kind)
    first: list[Any] = []
    if regex is not None:
        first = [pre_tokenizers.Split(Regex(regex), "isolated")]
    elif kind == "smollm":
        first = [pre_tokenizers.Digits(individual_digits=True)]
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=kind == "llama3-as-it-is"))
    library.pre_tokenizer = pre_tokenizers.Sequence([*first, last]) if first else last
    library.decoder = decoders.ByteLevel()
    if kind == "qwen2":
        library.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=CONTROL,
        initial_alphabet=[] if kind == "few-bytes" else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(corpus(), trainer)
    library.save(str(path))
    return HuggingFace(str(path), **added)


def network(vocab_size: int, *, seed: int = 3, **changes: Any) -> GPT:
    """A network whose log-probabilities spread by about one nat: errors show."""
    torch.manual_seed(seed)
    gpt = GPT(GPTConfig(**{**SIZES, "vocab_size": vocab_size, **changes})).eval()
    for parameter in gpt.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=parameter.size(1) ** -0.5)
        else:  # norms and biases
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return gpt


def save(folder: Path, gpt: GPT, tokenizer: Tokenizer | None, **meta: Any) -> Path:
    """A checkpoint of both."""
    meta = {"model": gpt_to_plain(gpt.config), "chat": False, "bidirectional": False, **meta}
    write_folder(folder, lambda inner: write_bundle(inner, meta, gpt.state_dict(), tokenizer))
    return folder


def texts_of_all_unicode(count: int) -> Sequence[str]:
    """Strings of every kind of character, the control characters of ASCII often."""
    generator = torch.Generator().manual_seed(1)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    ranges = [(0, 0x20), (0x20, 0x7F), (0x20, 0x7F), (0x80, 0xD800), (0xE000, 0x110000)]
    found = []
    for _ in range(count):
        picked = [chr(draw(*ranges[draw(0, len(ranges))])) for _ in range(draw(1, 12))]
        found.append("".join(picked).replace("\u2581", "") or "a")
    return found
