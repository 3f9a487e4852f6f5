"""What transformers makes of a folder, in a process of its own: the witness of a proof.

    python -m lit_llm.checkpoint.hf.their_side REQUEST.json

It takes nothing from lit-llm but the trick that saves memory: the model and the tokenizer are what
AutoModelForCausalLM and AutoTokenizer find.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers.utils import chat_template_utils

from lit_llm.checkpoint.hf.parts import in_float32
from lit_llm.checkpoint.hf.strings import DAY


def main() -> None:
    """Answer a request; see `witness`, which makes them."""
    request = json.loads(Path(sys.argv[1]).read_bytes())
    transformers.logging.set_verbosity_error()
    stop_the_clock()
    if "rows" in request:
        answer = {"version": transformers.__version__, **tokenized(request)}
        save_file(logits(request), request["logits"])
    else:
        answer = tokenizer_facts(request["folder"], request["chats"])
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


@torch.no_grad()
def logits(request: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Of each row: in the dtype that is asked for, if it is narrow, and in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        request["folder"],
        dtype=getattr(torch, request["dtype"]),
        attn_implementation="sdpa",
        trust_remote_code=False,
    ).eval()
    rows = [torch.tensor([row]) for row in request["rows"]]
    found = {}
    if model.dtype != torch.float32:
        found = {f"narrow.{i}": _of(model, row) for i, row in enumerate(rows)}
    in_float32(model)
    return found | {f"wide.{i}": _of(model, row) for i, row in enumerate(rows)}


def _of(model: torch.nn.Module, row: torch.Tensor) -> torch.Tensor:
    return model(row, use_cache=False).logits[0].float().contiguous()


def tokenizer_facts(folder: str, chats: list[dict[str, Any]]) -> dict[str, Any]:
    """What transformers makes of the tokenizer files of a folder; see `witness.TokenizerFacts`.

    Raises:
        TypeError: it is no tokenizer of the library `tokenizers`.
    """
    tokenizer = _tokenizer(folder)
    if not tokenizer.is_fast:
        raise TypeError(
            f"{type(tokenizer).__name__} is written in Python: there is no tokenizer.json"
        )
    written: list[str | None] = []
    for chat in chats if tokenizer.chat_template else ():
        try:
            written.append(
                tokenizer.apply_chat_template(
                    chat["messages"], add_generation_prompt=chat["answer"], tokenize=False
                )
            )
        except Exception:  # whatever a program in a template does
            written.append(None)
    return {
        "content": tokenizer.backend_tokenizer.to_str(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "written": written,
    }


def stop_the_clock() -> None:
    """Let templates that say today's date say another: today's is not a part of the model."""
    chat_template_utils.datetime = _Stopped  # type: ignore


class _Stopped:
    @staticmethod
    def now() -> datetime.date:
        return DAY


def _tokenizer(folder: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def tokenized(request: dict[str, Any]) -> dict[str, Any]:
    """Ids of texts, of texts in which control tokens are typed, and of chats."""
    tokenizer = _tokenizer(request["folder"])
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
