"""What transformers makes of a folder, in a process of its own: the witness of a proof.

    python -m lit_llm.checkpoint.hf.their_side REQUEST.json

It takes nothing from lit-llm but the trick that saves memory: the model and the tokenizer are what
AutoModelForCausalLM and AutoTokenizer find.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from lit_llm.checkpoint.hf.parts import in_float32


def main() -> None:
    """Answer a request: ids of rows and texts and chats in, logits and ids out."""
    request = json.loads(Path(sys.argv[1]).read_bytes())
    transformers.logging.set_verbosity_error()
    answer = {"version": transformers.__version__, **_tokenized(request)}
    save_file(_logits(request), request["logits"])
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


@torch.no_grad()
def _logits(request: dict[str, Any]) -> dict[str, torch.Tensor]:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        request["folder"], dtype=getattr(torch, request["dtype"]), attn_implementation="sdpa"
    ).eval()
    rows = [torch.tensor([row]) for row in request["rows"]]
    logits = {}
    if model.dtype != torch.float32:
        logits = {f"narrow.{i}": _of(model, row) for i, row in enumerate(rows)}
    in_float32(model)
    return logits | {f"wide.{i}": _of(model, row) for i, row in enumerate(rows)}


def _of(model: torch.nn.Module, row: torch.Tensor) -> torch.Tensor:
    return model(row, use_cache=False).logits[0].float().contiguous()


def _tokenized(request: dict[str, Any]) -> dict[str, Any]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(request["folder"])
    texts, typed = request["texts"], request["typed"]
    plain = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    split = [
        tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for text in typed
    ]
    chats = [
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        for messages in request["chats"]
    ]
    begun = tokenizer(texts[0])["input_ids"] if texts else []
    return {"texts": plain, "typed": split, "chats": chats, "begun": begun}


if __name__ == "__main__":
    main()
