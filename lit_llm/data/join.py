"""Several splits one after another as one, without copying their tokens."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lit_llm.data.atomic import new_folder
from lit_llm.data.shards import Shards, read_manifest, write_manifest


def join_shards(folder: Path, parts: Sequence[Path]) -> None:
    """Make `folder` the concatenation of `parts`, in their order.

    Token files are hard links where the file system has them, so they take no more space and the
    parts may be deleted later.

    Raises:
        ValueError: what a part holds cannot be tokens.
    """
    manifests = [read_manifest(part) for part in parts]
    head = {
        key: manifests[0][key] for key in ("format", "tokenizer", "vocab_size", "dtype", "has_mask")
    }
    shards: list[int] = []
    files = {}
    digest = hashlib.sha256()
    documents = tokens = 0
    with new_folder(folder, durable=False) as temporary:
        with (temporary / "starts.bin").open("wb") as handle:
            data = np.zeros(1, "<i8").tobytes()
            for part, manifest in zip(parts, manifests, strict=True):
                assert head.items() <= manifest.items(), "parts of different kinds"
                handle.write(data)
                digest.update(data)
                split = Shards(part)
                split.check()
                data = (split.starts[1:] + tokens).astype("<i8").tobytes()
                for number in range(len(manifest["shards"])):
                    for kind in ("tokens", "mask") if head["has_mask"] else ("tokens",):
                        old = f"{number:05d}-{kind}.bin"
                        new = f"{len(shards) + number:05d}-{kind}.bin"
                        _link(part / old, temporary / new)
                        files[new] = manifest["files"][old]
                shards += manifest["shards"]
                documents += manifest["n_documents"]
                tokens += manifest["n_tokens"]
            handle.write(data)
            digest.update(data)
            files["starts.bin"] = {"size": handle.tell(), "sha256": digest.hexdigest()}
        write_manifest(temporary, head, shards, documents, files)


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # exFAT and some network drives have no hard links
        shutil.copyfile(old, new)
