"""Small random models in the form in which models are published, one for each family and shape."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SIZES = {
    "vocab_size": 331,  # no multiple of anything
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def _rope(theta: float, **scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **scaling}}


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama-2": ("Llama", {"num_key_value_heads": 6, "rms_norm_eps": 1e-5}),
    "Llama-3": ("Llama", {**_rope(5e5, **LLAMA_3), "rms_norm_eps": 1e-5}),
    "linear rope": ("Llama", _rope(1e4, rope_type="linear", factor=2.0)),
    "TinyLlama": ("Llama", {"rms_norm_eps": 1e-5}),
    "SmolLM2": ("Llama", {**_rope(1e5), "tie_word_embeddings": True, "num_key_value_heads": 3}),
    "one KV head": ("Llama", {"num_key_value_heads": 1}),
    "wide heads": ("Llama", {"head_dim": 14}),
    "Mistral": ("Mistral", {"sliding_window": 24}),
    "Mistral, no window": ("Mistral", {"sliding_window": None, "head_dim": 10}),
    "Qwen2": ("Qwen2", {**_rope(1e6), "tie_word_embeddings": True}),
    "Qwen2, windows": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "Qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "Qwen3, untied": ("Qwen3", {"head_dim": 8, "num_key_value_heads": 6}),
    "Qwen3, windows": (
        "Qwen3",
        {"head_dim": 8, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
    ),
}


def their_config(family: str, **changed: Any) -> transformers.PretrainedConfig:
    """A small config of a family."""
    kind, own = FAMILIES[family]
    settings = {"tie_word_embeddings": False, **SIZES, **own, **changed}
    return getattr(transformers, f"{kind}Config")(**settings, bos_token_id=1, eos_token_id=2)


def publish(
    folder: Path,
    family: str,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "5GB",
    chat: str | None = CHATML,
    std: float = 0.15,
    **changed: Any,
) -> torch.nn.Module:
    """Write a random model of a family with a tokenizer, and give it back."""
    torch.manual_seed(len(family))
    config = their_config(family, **changed)
    model = getattr(transformers, f"{FAMILIES[family][0]}ForCausalLM")(config).eval()
    for parameter in model.parameters():  # biases and norms too: what is 0 or 1 hides its place
        parameter.data.normal_(std=std) if parameter.dim() == 2 else parameter.data.normal_(1, 0.3)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    publish_tokenizer(folder, chat=chat)
    return model


def publish_tokenizer(folder: Path, *, chat: str | None = CHATML, bos: bool = False) -> None:
    """Write a byte-level BPE with 320 tokens, as Qwen's.

    transformers gives a model of Qwen2 a tokenizer that cuts like that, whatever its file says.
    """
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    library = tokenizers.Tokenizer(models.BPE())
    library.normalizer = normalizers.NFC()
    cut = pre_tokenizers.Split(tokenizers.Regex(QWEN_WORDS), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([cut, bytes_])
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(["Anna bakes the bread and the baker eats it."] * 9, trainer)
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    if bos:
        library.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
    folder.mkdir(exist_ok=True)
    library.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if chat is not None:
        (folder / "chat_template.jinja").write_text(chat)


def publish_llama_2_tokenizer(
    folder: Path, *, legacy: bool | None = None, files: str = "both"
) -> None:
    """Write one as Llama 2, TinyLlama and Mistral have it: a space in front of every text."""
    library = io.BytesIO()
    texts = ["Anna bakes the bread and 12 people eat it.", "def f(x):\n    return x + 1"] * 50
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=library,
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
    )
    folder.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    (folder / "tokenizer.model").write_bytes(library.getvalue())
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        **({} if legacy is None else {"legacy": legacy}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if files == "model":
        return
    made = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str()
    content = json.loads(made)
    # as version 4 of transformers wrote it, whatever `legacy` said
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    content["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]}
    content["pre_tokenizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(content))
    if files == "json":
        (folder / "tokenizer.model").unlink()
