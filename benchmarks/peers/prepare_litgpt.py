"""litgpt's own preparation of text files, timed by whoever starts this process.

    python -m benchmarks.peers.prepare_litgpt TEXTS TOKENIZER OUT

`litgpt.data.TextFiles` writes below the folder of its texts and leaves one core of the machine
idle: so OUT gets a copy of that folder (of links), and the number of cores is said to be one more.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROCESSES = 2


def main(texts: str, tokenizer: str, out: str) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as it is in its processes in any case
    for name in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
        os.environ[name] = str(Path(out).absolute() / "litdata" / name)  # else one for all of /tmp
    os.cpu_count = lambda: PROCESSES + 1  # type: ignore[assignment]
    folder = Path(out)
    folder.mkdir(parents=True)
    for path in sorted(Path(texts).glob("*.txt")):
        (folder / path.name).symlink_to(path.resolve())

    from litgpt.data import TextFiles
    from litgpt.tokenizer import Tokenizer

    data = TextFiles(train_data_path=folder)
    data.connect(Tokenizer(tokenizer), batch_size=1, max_seq_length=1024)
    data.prepare_data()
    written = sum(path.stat().st_size for path in (folder / "train").rglob("*.bin"))
    assert written, "litgpt wrote no tokens"


if __name__ == "__main__":
    main(*sys.argv[1:4])
