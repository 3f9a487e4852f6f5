import torch

from lit_llm.model import layout as module
from lit_llm.model.layout import Layout

DOCUMENTS = torch.tensor([[0, 0, 1, 1, 1, -1]])
POSITIONS = torch.tensor([[0, 1, 0, 1, 2, 0]])


def drawn(layout: Layout) -> list[str]:
    """One string per query of the first row; x: visible key."""
    assert layout.mask_B1TS is not None
    return ["".join("x" if key else "." for key in query) for query in layout.mask_B1TS[0, 0]]


def test_plain_rows_are_seen_causally_without_a_mask():
    layout = Layout.plain(torch.zeros(2, 5, dtype=torch.int64))
    assert layout.positions_BT.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert layout.is_causal
    assert layout.mask_B1TS is None


def test_packed_documents_see_their_own_past_only():
    layout = Layout.packed(DOCUMENTS, POSITIONS)
    assert drawn(layout) == ["x.....", "xx....", "..x...", "..xx..", "..xxx.", ".....x"]
    assert not layout.is_causal
    assert torch.equal(layout.positions_BT, POSITIONS)


def test_bidirectional_documents_see_all_of_themselves():
    layout = Layout.packed(DOCUMENTS, POSITIONS, bidirectional=True)
    assert drawn(layout) == ["xx....", "xx....", "..xxx.", "..xxx.", "..xxx.", ".....x"]


def test_rows_with_one_document_each_need_no_mask_on_a_cpu():
    documents, positions = torch.tensor([[4, 4, 4], [0, 0, 0]]), torch.arange(3).expand(2, 3)
    causal = Layout.packed(documents, positions)
    assert (causal.mask_B1TS, causal.is_causal) == (None, True)
    both_ways = Layout.packed(documents, positions, bidirectional=True)
    assert (both_ways.mask_B1TS, both_ways.is_causal) == (None, False)


def test_one_row_with_two_documents_gives_every_row_a_mask():
    layout = Layout.packed(torch.tensor([[0, 0], [0, 1]]), torch.tensor([[0, 1], [0, 0]]))
    assert layout.mask_B1TS is not None
    assert layout.mask_B1TS[:, 0].tolist() == [
        [[True, False], [True, True]],
        [[True, False], [False, True]],
    ]


def test_a_cached_token_sees_the_slots_up_to_its_own():
    layout = Layout.cached(torch.tensor([[0, 1], [2, 3]]), slots=5)
    assert layout.mask_B1TS is not None
    assert layout.mask_B1TS.int().tolist() == [
        [[[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]],
        [[[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]],
    ]


def test_the_first_tokens_of_a_cache_need_no_mask():
    """SDPA's causal rule counts from the first key: slots after the prompt stay hidden."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 7, 8), torch.randn(1, 2, 7, 8)
    layout = Layout.prefill(torch.arange(3)[None], slots=7)
    masked = Layout.cached(torch.arange(3)[None], slots=7)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert layout.mask_B1TS is None
    found = attend(q, k, v, is_causal=layout.is_causal)
    assert torch.allclose(found, attend(q, k, v, attn_mask=masked.mask_B1TS), atol=1e-6)


def test_the_first_tokens_get_a_mask_where_the_causal_rule_is_broken(monkeypatch):
    assert "mps" in module.CAUSAL_IS_WRONG_ON
    monkeypatch.setattr(module, "CAUSAL_IS_WRONG_ON", ("cpu",))
    positions = torch.arange(3)[None]
    found, masked = Layout.prefill(positions, slots=7), Layout.cached(positions, slots=7)
    assert not found.is_causal
    assert found.mask_B1TS is not None
    assert torch.equal(found.mask_B1TS, masked.mask_B1TS)
    whole = Layout.plain(torch.zeros(1, 3, dtype=torch.int64))
    assert whole.mask_B1TS is not None
    assert torch.equal(whole.mask_B1TS[0, 0], torch.ones(3, 3, dtype=torch.bool).tril())


def test_a_window_hides_what_is_further_away():
    layout = Layout.plain(torch.zeros(1, 6, dtype=torch.int64)).within(3)
    assert drawn(layout) == ["x.....", "xx....", "xxx...", ".xxx..", "..xxx.", "...xxx"]
    assert not layout.is_causal


def test_a_window_lies_inside_a_document():
    documents, positions = torch.tensor([[0, 0, 0, 1, 1, -1]]), torch.tensor([[0, 1, 2, 0, 1, 0]])
    layout = Layout.packed(documents, positions).within(2)
    assert drawn(layout) == ["x.....", "xx....", ".xx...", "...x..", "...xx.", ".....x"]


def test_a_window_reaches_both_ways_where_attention_does():
    documents, positions = torch.zeros(1, 5, dtype=torch.int64), torch.arange(5)[None]
    layout = Layout.packed(documents, positions, bidirectional=True).within(2)
    assert drawn(layout) == ["xx...", "xxx..", ".xxx.", "..xxx", "...xx"]


def test_a_window_counts_the_slots_of_a_cache():
    first = Layout.prefill(torch.arange(4)[None], slots=6).within(2, slots=6)
    assert drawn(first) == ["x.....", "xx....", ".xx...", "..xx.."]
    later = Layout.cached(torch.tensor([[4]]), slots=6).within(2, slots=6)
    assert drawn(later) == ["...xx."]


def test_a_window_that_hides_nothing_leaves_the_layout_as_it_is():
    layout = Layout.plain(torch.zeros(1, 6, dtype=torch.int64))
    assert layout.within(6) is layout
    cached = Layout.cached(torch.tensor([[4]]), slots=6)
    assert cached.within(6, slots=6) is cached
