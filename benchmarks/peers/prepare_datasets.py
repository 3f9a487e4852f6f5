"""Text files to token ids with `datasets.map`, timed by whoever starts this process.

    python -m benchmarks.peers.prepare_datasets TEXTS TOKENIZER OUT

A document is a file, and each gets a bos and an eos, as in lit-llm. What `map` writes, Arrow files
in its cache, is the result: nothing is packed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROCESSES = 2


def main(texts: str, tokenizer: str, out: str) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a process on every core
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(Path(tokenizer) / "tokenizer.json"))
    bos, eos = encoder.token_to_id("<s>"), encoder.token_to_id("</s>")

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encoded = encoder.encode_batch_fast(batch["text"], add_special_tokens=False)
        return {"ids": [[bos, *one.ids, eos] for one in encoded]}

    files = sorted(str(path) for path in Path(texts).glob("*.txt"))
    found = datasets.load_dataset(
        "text", data_files=files, sample_by="document", split="train", cache_dir=out
    )
    found = found.map(encode, batched=True, num_proc=PROCESSES, remove_columns=["text"])
    assert len(found) == len(files)


if __name__ == "__main__":
    main(*sys.argv[1:4])
