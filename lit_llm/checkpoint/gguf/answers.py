"""Asks llama.cpp, as a script in a process of its own.

Where llama.cpp fails it takes the process with it, and its threads do not mix with PyTorch's.
Standard input is a JSON object, standard output another:

    model      path of the file                  texts    ids of each, control tokens unknown
    context    tokens that prompts may take      answers  for each prompt, for each step, the
    threads    of the arithmetic                          likeliest: [[id, log-probability], ...];
    texts      to be tokenized                            the first of them goes on the prompt
    prompts    ids of each                       chats    ids of each conversation, up to where
    tokens     how many follow each prompt                the assistant begins
    likeliest  how many log-probabilities each
    letter     id of a token that is whole text
    chats      messages of each conversation

The package xllamacpp is llama.cpp's server as a library. It listens on a port of this machine;
`/completion` takes a prompt as ids, and with `n_probs` tells log-probabilities of the likeliest
next tokens, before anything is sampled (`post_sampling_probs: false`). It keeps them to itself
where the token that it samples ends inside a character or ends the answer: so it is made to sample
a letter, by a bias that these log-probabilities do not show, and asked step by step. Keys and
values are kept in float32 and flash attention is off, for both round to 16 bits by default.
"""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit


def main() -> None:
    """Answer one question of the other process."""
    asked = json.load(sys.stdin)
    server = _start(asked)
    connection = HTTPConnection(urlsplit(server.listening_address).netloc)

    settings = {
        "n_predict": 1,
        "n_probs": asked["likeliest"],
        "post_sampling_probs": False,
        "temperature": 0,
        "logit_bias": [[asked["letter"], 1e6]],
    }

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        content = json.loads(response.read())
        if response.status != 200:
            raise SystemExit(f"{path}: {content}")
        return content

    def tokenize(text: str, *, is_prompt: bool) -> list[int]:
        body = {"content": text, "add_special": is_prompt, "parse_special": is_prompt}
        return post("/tokenize", body)["tokens"]

    def follow(prompt: list[int]) -> list[Any]:
        ids, steps = list(prompt), []
        for _ in range(asked["tokens"]):
            answer = post("/completion", {"prompt": ids, **settings})
            likeliest = answer["completion_probabilities"][0]["top_logprobs"]
            steps.append([[top["id"], top["logprob"]] for top in likeliest])
            ids.append(likeliest[0]["id"])
        return steps

    def chat(messages: list[dict[str, str]]) -> list[int]:
        prompt = post("/apply-template", {"messages": messages})["prompt"]
        return tokenize(prompt, is_prompt=True)

    answers = {
        "texts": [tokenize(text, is_prompt=False) for text in asked["texts"]],
        "answers": [follow(prompt) for prompt in asked["prompts"]],
        "chats": [chat(messages) for messages in asked["chats"]],
    }
    json.dump(answers, sys.stdout)
    sys.stdout.flush()


def _start(asked: dict[str, Any]) -> Any:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = asked["model"]
    settings.n_ctx = settings.n_batch = settings.n_ubatch = asked["context"]
    settings.n_parallel = 1
    settings.n_gpu_layers = 0
    settings.warmup = settings.fit_params = False
    settings.verbosity = 1  # warnings and errors
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = asked["threads"]
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(settings)


if __name__ == "__main__":
    main()
