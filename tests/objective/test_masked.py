from types import SimpleNamespace

import pytest
import torch

from lit_llm.data.batch import IGNORE, Batch
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.layout import Layout
from lit_llm.objective import MaskedLM

V, B, T = 300, 64, 512
SPECIAL = {"pad": 0, "bos": 1, "mask": 7}


@pytest.fixture
def batch():
    tokens = torch.randint(8, V, (B, T), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = SPECIAL["bos"]
    documents = torch.zeros(B, T, dtype=torch.int64)
    documents[:, -12:] = -1
    positions = torch.arange(T).expand(B, T)
    return Batch(tokens, torch.full((B, T), IGNORE), documents, positions)


@pytest.fixture
def objective():
    objective = MaskedLM()
    objective.bind(SimpleNamespace(vocab_size=V, special=SPECIAL))
    return objective


def test_corruption_follows_berts_shares(objective, batch):
    inputs, targets = objective.corrupt(batch, torch.Generator().manual_seed(2))
    candidates = B * (T - 1 - 12)
    chosen = targets != IGNORE
    n = int(chosen.sum())
    # 4 standard deviations of the binomial shares
    assert n / candidates == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / candidates) ** 0.5)
    masked = chosen & (inputs == SPECIAL["mask"])
    kept = chosen & (inputs == batch.tokens_BT)
    swapped = chosen & ~masked & ~kept
    for part, share in ((masked, 0.8), (swapped, 0.1 * (1 - 1 / 290)), (kept, 0.1)):
        deviation = (share * (1 - share) / n) ** 0.5
        assert int(part.sum()) / n == pytest.approx(share, abs=4 * deviation)
    assert torch.equal(inputs[~chosen], batch.tokens_BT[~chosen])
    assert torch.equal(targets[chosen], batch.tokens_BT[chosen])


def test_control_tokens_and_padding_are_neither_chosen_nor_drawn(objective, batch):
    inputs, targets = objective.corrupt(batch, torch.Generator().manual_seed(3))
    assert (targets[:, 0] == IGNORE).all()
    assert (targets[:, -12:] == IGNORE).all()
    new = inputs[inputs != batch.tokens_BT]
    assert set(new.tolist()) <= {SPECIAL["mask"], *range(V)} - {SPECIAL["pad"], SPECIAL["bos"]}


def test_a_prediction_depends_on_both_sides_and_on_no_other_document():
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=V, max_seq_len=9, n_layer=2, d_model=24, n_head=3)).eval()
    objective = MaskedLM(share=1.0, masked=0.0, random=0.0)
    objective.bind(SimpleNamespace(vocab_size=V, special=SPECIAL))
    documents = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3]])
    tokens = torch.arange(8, 17)[None]
    captured = []
    gpt.norm.register_forward_hook(lambda module, args, out: captured.append(out[0]))
    for changed in (None, 0, 4, 7):
        inputs = tokens.clone()
        if changed is not None:
            inputs[0, changed] = 99
        objective(gpt, Batch(inputs, tokens, documents, positions))
    before, first, last, other = captured
    assert not torch.equal(before[2], first[2])  # sees the past
    assert not torch.equal(before[2], last[2])  # sees the future
    assert torch.equal(before[2], other[2])  # sees no other document


def test_a_tokenizer_without_mask_is_refused():
    with pytest.raises(ValueError, match="needs a mask token"):
        MaskedLM().bind(SimpleNamespace(vocab_size=V, special={"pad": 0}))


@pytest.mark.parametrize("shares", [{"share": 0.0}, {"masked": 0.9, "random": 0.2}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="share"):
        MaskedLM(**shares)


def test_evaluate_masks_one_token_at_a_time():
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=V, max_seq_len=7, n_layer=2, d_model=24, n_head=3)).eval()
    objective = MaskedLM()
    objective.bind(SimpleNamespace(vocab_size=V, special=SPECIAL))
    tokens = torch.tensor([[1, 8, 9, 10, 11, 12, 0], [1, 20, 21, 1, 30, 31, 32]])
    documents = torch.tensor([[0] * 6 + [-1], [0, 0, 0, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 0], [0, 1, 2, 0, 1, 2, 3]])
    sums = objective.evaluate(gpt, Batch(tokens, tokens, documents, positions))

    total = 0.0
    for row, start, stop in ((0, 0, 6), (1, 0, 3), (1, 3, 7)):
        document = tokens[row, start:stop]
        for place in range(1, len(document)):  # all but bos
            masked = document.clone()
            masked[place] = SPECIAL["mask"]
            layout = Layout(torch.arange(len(masked))[None], None, is_causal=False)
            logits = gpt(masked[None], layout)[0, place].detach()
            total += float(logits.logsumexp(0) - logits[document[place]])
    assert int(sums.tokens) == 10
    assert float(sums.loss.detach()) == pytest.approx(total, rel=1e-5)
    assert (sums.targets_BT != IGNORE).sum() == 10
