import pytest
import torch

from lit_llm.generation import Sampling, generate, score, score_batch
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT

PAIRS = [([5, 6, 7], [8]), ([9], [1, 2, 3, 4]), ([9, 1, 2, 3, 4, 5], [6, 7])]


@pytest.fixture(scope="module")
def gpt() -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=30, max_seq_len=12, n_layer=2, d_model=36, n_head=6)).eval()


@torch.no_grad()
def slow(gpt: GPT, prompt: list[int], continuation: list[int]) -> float:
    """One token at a time, as the definition says."""
    total, ids = 0.0, list(prompt)
    for id in continuation:
        total += gpt(torch.tensor([ids]))[0, -1].log_softmax(-1)[id].item()
        ids.append(id)
    return total


def test_a_batch_equals_the_definition(gpt):
    expected = [slow(gpt, *pair) for pair in PAIRS]
    assert score_batch(gpt, PAIRS) == pytest.approx(expected, abs=1e-5)
    assert [score(gpt, *pair) for pair in PAIRS] == pytest.approx(expected, abs=1e-5)


def test_the_score_of_a_generated_answer_is_the_sum_of_its_logprobs(gpt):
    answer = generate(gpt, [[3, 4]], Sampling(max_new_tokens=7, temperature=1.0))[0]
    assert score(gpt, [3, 4], answer.ids) == pytest.approx(sum(answer.logprobs), abs=1e-5)


def test_all_continuations_of_one_token_share_the_whole_probability(gpt):
    scores = torch.tensor(score_batch(gpt, [([3, 4], [id]) for id in range(30)]))
    assert scores.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_the_last_token_needs_no_place_in_the_context(gpt):
    pair = [1, 2, 3, 4], [5] * 9
    assert score(gpt, *pair) == pytest.approx(slow(gpt, *pair), abs=1e-5)
    with pytest.raises(ValueError, match="prompt 0 has 5 tokens and needs 8 more, max_seq_len=12"):
        score(gpt, [0, *pair[0]], pair[1])


def test_nothing_to_score_is_refused(gpt):
    with pytest.raises(ValueError, match="continuation 1 has no tokens"):
        score_batch(gpt, [([1], [2]), ([1], [])])
    with pytest.raises(ValueError, match="prompt 0 has no tokens"):
        score(gpt, [], [2])
    with pytest.raises(ValueError, match="continuation 0: token id 30"):
        score(gpt, [1], [30])


def test_no_pairs_give_no_scores(gpt):
    assert score_batch(gpt, []) == []
