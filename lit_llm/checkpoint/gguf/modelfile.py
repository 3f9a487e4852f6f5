"""What does ollama read beside the file? Its Modelfile: the template, and how to answer.

https://github.com/ollama/ollama/blob/main/docs/modelfile.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence


def modelfile(gguf: str, template: str | None, stops: Sequence[str], context: int) -> str:
    """Write a Modelfile.

    Args:
        gguf: name of the file, which lies beside it
        template: of a prompt, in Go's syntax; None: ollama guesses it from the Jinja in the file
        stops: texts that end an answer
        context: tokens that the model can read at once
    """
    lines = [
        "# ollama create NAME -f Modelfile && ollama run NAME",
        f"FROM ./{gguf}",
        *([] if template is None else [f'TEMPLATE """{template}"""']),
        *(f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops),
        f"PARAMETER num_ctx {context}",
        "# As python cli.py predict answers: the likeliest token each time, repeated or not.",
        "# Temperature 0.7 makes answers that differ.",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    return "\n".join(lines) + "\n"
