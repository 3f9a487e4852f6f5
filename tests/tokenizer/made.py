"""tokenizer.json files of the `tokenizers` library, trained for a test."""

from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers


def byte_level(
    path: Path, texts: Sequence[str], vocab_size: int, special: Sequence[str], *, regex: bool = True
) -> str:
    """Write one like GPT-2's, Llama 3's and Qwen's."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    library.save(str(path))
    return str(path)


def unigram(
    path: Path, texts: Sequence[str], vocab_size: int, special: Sequence[str], alphabet: str
) -> str:
    """Write one like T5's: its vocabulary itself holds the control tokens."""
    library = tokenizers.Tokenizer(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    library.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        unk_token="<unk>",
        initial_alphabet=sorted(set(alphabet)),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    library.save(str(path))
    return str(path)
