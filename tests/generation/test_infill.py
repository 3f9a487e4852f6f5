import pytest
import torch

from lit_llm.generation.infill import fill, masked_ids, split_masks
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.layout import Layout

MASK, V = 3, 40
PROMPTS = [[1, MASK, 7, 8, MASK, 2], [9, 10, MASK], [MASK, 11, 12, 13]]


@pytest.fixture(scope="module")
def gpt() -> GPT:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=V, max_seq_len=9, n_layer=2, d_model=36, n_head=6, dropout=0.5))
    for parameter in gpt.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return gpt.eval()


@torch.no_grad()
def probabilities(gpt: GPT, prompt: list[int], at: int) -> torch.Tensor:
    """One prompt alone, every token seen from everywhere, the mask itself ruled out."""
    tokens = torch.tensor([prompt])
    layout = Layout(torch.arange(len(prompt))[None], mask_B1TS=None, is_causal=False)
    logits = gpt(tokens, layout)[0, at]
    logits[MASK] = -torch.inf
    return logits.softmax(-1)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("plain", ["plain"]),
        ("a [MASK] b", ["a ", " b"]),
        ("[MASK][MASK]", ["", "", ""]),
        (r"say \[MASK]", ["say [MASK]"]),
        (r"\[MASK] is [MASK]", ["[MASK] is ", ""]),
        ("[mask] [ MASK]", ["[mask] [ MASK]"]),
        (r"c:\dir [MASK]", [r"c:\dir ", ""]),
    ],
)
def test_text_is_split_at_markers_that_are_not_escaped(text, pieces):
    assert split_masks(text) == pieces


def test_each_marker_becomes_one_mask_between_the_encoded_pieces():
    ids = masked_ids(
        r"a[MASK]\[MASK]", lambda text: [ord(c) for c in text], MASK, before=[1], after=[2]
    )
    assert ids == [1, ord("a"), MASK, *map(ord, "[MASK]"), 2]


def test_a_prompt_without_a_marker_is_refused():
    with pytest.raises(ValueError, match=r"no \[MASK\] in prompt 'plain'"):
        masked_ids("plain", lambda text: [0], MASK)


def test_candidates_equal_one_prompt_at_a_time_whatever_else_is_in_the_batch(gpt):
    filled = fill(gpt, PROMPTS, MASK, top_n=4)
    assert [len(masks) for masks in filled] == [2, 1, 1]
    for prompt, masks in zip(PROMPTS, filled, strict=True):
        places = [at for at, id in enumerate(prompt) if id == MASK]
        for at, candidates in zip(places, masks, strict=True):
            expected = probabilities(gpt, prompt, at).topk(4)
            assert [c.id for c in candidates] == expected.indices.tolist()
            ours = [c.probability for c in candidates]
            assert ours == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_a_mask_sees_both_sides(gpt):
    before = fill(gpt, [[5, 6, MASK, 7, 8]], MASK)
    assert fill(gpt, [[9, 6, MASK, 7, 8]], MASK) != before
    assert fill(gpt, [[5, 6, MASK, 7, 9]], MASK) != before


def test_candidates_are_ranked_and_share_the_whole_probability(gpt):
    (candidates,) = fill(gpt, [[1, MASK]], MASK, top_n=99, forbidden_ids={0, 1, 2})[0]
    assert sorted(c.id for c in candidates) == list(range(4, V))  # not the mask, not the forbidden
    ranked = [c.probability for c in candidates]
    assert ranked == sorted(ranked, reverse=True)
    assert sum(ranked) == pytest.approx(1.0, abs=1e-5)


def test_dropout_is_off_and_the_mode_is_restored(gpt):
    expected = fill(gpt, PROMPTS, MASK)
    gpt.train()
    assert fill(gpt, PROMPTS, MASK) == expected
    assert gpt.training
    gpt.eval()


def test_a_full_context_can_be_filled(gpt):
    assert len(fill(gpt, [[MASK] * 9], MASK)[0]) == 9


@pytest.mark.parametrize(
    ("prompts", "arguments", "message"),
    [
        ([[1, MASK], [1, 2]], {}, "prompt 1 has no mask"),
        ([[]], {}, "prompt 0 has no tokens"),
        ([[MASK] * 10], {}, "prompt 0 has 10 tokens"),
        ([[MASK, 40]], {}, "token id 40"),
        ([[MASK]], {"top_n": 0}, "top_n=0"),
        ([[MASK]], {"forbidden_ids": range(40)}, "forbids every token"),
    ],
)
def test_what_cannot_be_filled_is_refused(gpt, prompts, arguments, message):
    with pytest.raises(ValueError, match=message):
        fill(gpt, prompts, MASK, **arguments)


def test_no_prompts_give_no_candidates(gpt):
    assert fill(gpt, [], MASK) == []


def test_a_mask_takes_the_space_before_it_where_words_begin_with_theirs():
    def encode(text: str) -> list[int]:
        return [ord(character) for character in text]

    ids = masked_ids("a [MASK]b [MASK]", encode, 0, takes_space=True)
    assert ids == [ord("a"), 0, ord("b"), 0]
    assert masked_ids("a [MASK] ", encode, 0) == [ord("a"), ord(" "), 0, ord(" ")]
    assert masked_ids("[MASK] a ", encode, 0, takes_space=True) == [0, ord(" "), ord("a"), ord(" ")]
