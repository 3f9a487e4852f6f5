import math

import pytest
import torch

from lit_llm.generation import Sampling, generate, stream
from lit_llm.generation.sampling import next_tokens, row_generator
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT

V, CONTEXT = 70, 40
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [16, 17], [8]]  # unequal lengths, one twice
DRAW = Sampling(max_new_tokens=20, temperature=1.0, top_p=0.95, seed=3)


def token_bytes(id: int) -> bytes:
    """Ids 0 to 9 are control tokens, 10 to 59 single letters, the others bytes of a snowman."""
    if id < 10:
        return b""
    return bytes([65 + id - 10]) if id < 60 else "☃".encode()[id % 3 : id % 3 + 1]


@pytest.fixture(scope="module")
def gpt() -> GPT:
    torch.manual_seed(1)
    config = GPTConfig(
        vocab_size=V, max_seq_len=CONTEXT, n_layer=2, d_model=36, n_head=6, n_kv_head=2, dropout=0.2
    )
    gpt = GPT(config)
    for parameter in gpt.parameters():  # decided enough not to repeat one token forever
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.4)
    return gpt.eval()


@torch.no_grad()
def slow(gpt: GPT, prompt: list[int], sampling: Sampling, copy: int = 0) -> list[int]:
    """One prompt, no cache, no stop: the whole sequence through the model for every token."""
    ids = list(prompt)
    generator = row_generator(sampling.seed, prompt, copy)
    for _ in range(sampling.max_new_tokens):
        seen = torch.zeros(1, V, dtype=torch.bool)
        seen[0, ids] = True
        logits = gpt(torch.tensor([ids]))[:, -1]
        ids += next_tokens(logits, sampling, generators=[generator], seen_BV=seen).tolist()
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=20),
        Sampling(max_new_tokens=20, repetition_penalty=1.3),
        DRAW,
        Sampling(max_new_tokens=20, temperature=0.8, top_k=9, repetition_penalty=1.2, seed=1),
    ],
    ids=["greedy", "greedy-penalty", "nucleus", "top-k-penalty"],
)
def test_batched_and_cached_equals_one_by_one_and_uncached(gpt, sampling):
    copies = [0, 0, 0, 0, 1]
    expected = [slow(gpt, p, sampling, c) for p, c in zip(PROMPTS, copies, strict=True)]
    assert len({tuple(ids) for ids in expected}) >= 4
    assert [answer.ids for answer in generate(gpt, PROMPTS, sampling)] == expected
    for prompt, ids in zip(PROMPTS[:4], expected, strict=False):
        assert generate(gpt, [prompt], sampling)[0].ids == ids


@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_a_row_goes_on_unmoved_when_others_finish(gpt, penalty):
    """Rows stop at different steps, so the batch shrinks on the way."""
    sampling = Sampling(max_new_tokens=20, temperature=1.0, repetition_penalty=penalty, seed=3)
    full = [slow(gpt, prompt, sampling) for prompt in PROMPTS[:4]]
    stop_ids = {full[0][4], full[1][9]}
    answers = generate(gpt, PROMPTS[:4], sampling, stop_ids=stop_ids)
    assert len({len(answer.ids) for answer in answers}) > 2
    for answer, ids in zip(answers, full, strict=True):
        ends = [i for i, id in enumerate(ids) if id in stop_ids]
        assert answer.ids == (ids[: ends[0]] if ends else ids)
        assert answer.finish_reason == ("stop_token" if ends else "length")


def test_the_order_of_the_prompts_does_not_matter(gpt):
    forward = generate(gpt, PROMPTS[:4], DRAW)
    backward = generate(gpt, PROMPTS[3::-1], DRAW)
    assert [a.ids for a in forward] == [a.ids for a in reversed(backward)]


def test_seeds_are_reproducible_and_differ(gpt):
    again = [generate(gpt, PROMPTS, DRAW)[0].ids for _ in range(2)]
    other = generate(gpt, PROMPTS, Sampling(max_new_tokens=20, temperature=1.0, top_p=0.95, seed=4))
    assert again[0] == again[1] != other[0].ids


def test_equal_prompts_get_different_samples(gpt):
    answers = generate(gpt, [[8], [8], [8]], DRAW)
    assert len({tuple(answer.ids) for answer in answers}) == 3


def test_the_global_random_state_is_neither_used_nor_moved(gpt):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = generate(gpt, PROMPTS, DRAW)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    assert generate(gpt, PROMPTS, DRAW) == first


def test_forbidden_tokens_are_never_generated(gpt):
    forbidden = set(range(0, V, 2))
    for sampling in (Sampling(max_new_tokens=30), Sampling(max_new_tokens=30, temperature=9.0)):
        answers = generate(gpt, PROMPTS, sampling, forbidden_ids=forbidden)
        assert all(len(answer.ids) == 30 and not forbidden & {*answer.ids} for answer in answers)


def test_logprobs_are_the_models_own_at_temperature_one(gpt):
    sampling = Sampling(max_new_tokens=6, temperature=2.0, repetition_penalty=1.5, top_k=5)
    answer = generate(gpt, [PROMPTS[2]], sampling, forbidden_ids={3})[0]
    with torch.no_grad():
        logits = gpt(torch.tensor([PROMPTS[2] + answer.ids]))[0, 6:-1]
    expected = logits.log_softmax(-1)[range(6), answer.ids]
    assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_generation_ends_when_the_context_is_full(gpt):
    long = [*range(20)] * 2
    answers = generate(gpt, [long[:-3], long[:-1], [8]], Sampling(max_new_tokens=10))
    assert [len(answer.ids) for answer in answers] == [3, 1, 10]
    assert [answer.finish_reason for answer in answers] == ["context", "context", "length"]


def test_a_stop_string_ends_the_answer_and_is_cut_from_it(gpt):
    letters = set(range(10, 60))
    sampling = Sampling(max_new_tokens=12)
    (whole,) = generate(
        gpt, [[8]], sampling, forbidden_ids=set(range(V)) - letters, token_bytes=token_bytes
    )
    assert len(whole.text) == 12
    stop = whole.text[5:8]  # three tokens spell it
    cut = whole.text.index(stop)
    (answer,) = generate(
        gpt,
        [[8]],
        Sampling(max_new_tokens=12, stop=[stop, "no such text"]),
        forbidden_ids=set(range(V)) - letters,
        token_bytes=token_bytes,
    )
    assert answer.finish_reason == "stop_string"
    assert answer.text == whole.text[:cut]
    assert answer.ids == whole.ids[: cut + 3]  # the ids keep what spells the stop string


def test_streamed_pieces_are_whole_characters_and_make_up_the_text(gpt):
    pieces: dict[int, list[str]] = {index: [] for index in range(len(PROMPTS))}
    sampling = Sampling(max_new_tokens=30, temperature=3.0, stop=["AB"])
    answers = generate(
        gpt,
        PROMPTS,
        sampling,
        token_bytes=token_bytes,
        on_text=lambda index, piece: pieces[index].append(piece),
    )
    for index, answer in enumerate(answers):
        assert "".join(pieces[index]) == answer.text
        assert all(pieces[index])
        expected = b"".join(map(token_bytes, answer.ids)).decode(errors="replace")
        assert answer.finish_reason == "length"
        assert answer.text == expected
        streamed = stream(gpt, PROMPTS[index], sampling, token_bytes=token_bytes)
        assert index == 4 or list(streamed) == pieces[index]  # 4 is the second copy of a prompt


def test_stop_tokens_are_not_in_the_answer(gpt):
    whole = generate(gpt, [[8]], Sampling(max_new_tokens=3))[0].ids
    answer = generate(gpt, [[8]], Sampling(max_new_tokens=3), stop_ids={whole[2]})[0]
    assert answer.finish_reason == "stop_token"
    assert answer.ids == whole[:2]


def test_the_end_releases_what_might_have_become_a_stop_string(gpt):
    third = generate(gpt, [[8]], Sampling(max_new_tokens=3))[0].ids[2]
    sampling = Sampling(max_new_tokens=3, stop=["<<<<"])
    for stop_ids, text in (((), "<<<"), ({third}, "<<")):
        pieces = []
        (answer,) = generate(
            gpt,
            [[8]],
            sampling,
            token_bytes=lambda id: b"<",
            stop_ids=stop_ids,
            on_text=lambda index, piece: pieces.append(piece),  # noqa: B023
        )
        assert answer.text == text
        assert pieces == [text]


def test_modes_are_restored_and_dropout_is_off_meanwhile(gpt):
    expected = generate(gpt, PROMPTS, DRAW)
    gpt.train()
    gpt.blocks[1].eval()
    try:
        assert generate(gpt, PROMPTS, DRAW) == expected
        assert gpt.training
        assert gpt.blocks[0].training
        assert not gpt.blocks[1].training
        pieces = stream(gpt, [10, 11], Sampling(max_new_tokens=9), token_bytes=lambda id: b"x")
        next(pieces)
        assert not torch.is_inference_mode_enabled()  # the caller's code is not in our mode
        pieces.close()
        assert gpt.training
    finally:
        gpt.eval()


def test_a_bfloat16_model_generates(gpt):
    half = GPT(gpt.config).bfloat16()
    half.load_state_dict(gpt.state_dict())
    assert len(generate(half, PROMPTS, DRAW)[2].ids) == 20


def test_no_prompts_give_no_answers(gpt):
    assert generate(gpt, [], DRAW) == []


@pytest.mark.parametrize(
    ("prompts", "arguments", "message"),
    [
        ([[1], []], {}, "prompt 1 has no tokens"),
        ([[1] * 40], {}, "prompt 0 has 40 tokens and needs 1 more, max_seq_len=40"),
        ([[1, 70]], {}, "prompt 0: token id 70 is outside the model's vocab_size=70"),
        ([[-1]], {}, "token id -1"),
        ([[1]], {"forbidden_ids": [70]}, "forbidden_ids: token id 70"),
        ([[1]], {"forbidden_ids": range(70)}, "forbids every token"),
        ([[1]], {"sampling": Sampling(stop=["x"])}, "pass token_bytes too"),
        ([[1]], {"on_text": print}, "pass token_bytes too"),
    ],
)
def test_what_cannot_be_generated_is_refused(gpt, prompts, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(gpt, prompts, **{"sampling": DRAW} | arguments)


def test_a_stream_refuses_bad_arguments_before_the_first_piece(gpt):
    with pytest.raises(ValueError, match="prompt 0 has no tokens"):
        stream(gpt, [], DRAW, token_bytes=token_bytes)


def test_a_model_that_diverged_is_reported(gpt):
    broken = GPT(gpt.config)
    torch.nn.init.constant_(broken.norm.weight, math.nan)
    with pytest.raises(ValueError, match="logits are NaN"):
        generate(broken, PROMPTS, DRAW)
