import torch

from lit_llm.data.batch import IGNORE, PADDING, Row, collate, empty_row


def row(first: int) -> Row:
    return Row(*(torch.arange(3) + first + 10 * field for field in range(4)))


def test_collate_stacks_each_field_by_itself():
    batch = collate([row(0), row(100)])
    assert batch.tokens_BT.tolist() == [[0, 1, 2], [100, 101, 102]]
    assert batch.labels_BT.tolist() == [[10, 11, 12], [110, 111, 112]]
    assert batch.documents_BT.tolist() == [[20, 21, 22], [120, 121, 122]]
    assert batch.positions_BT.tolist() == [[30, 31, 32], [130, 131, 132]]
    assert all(field.dtype == torch.int64 for field in batch)


def test_an_empty_row_is_padding_without_labels():
    tokens_T, labels_T, documents_T, positions_T = empty_row(row(5))
    assert labels_T.tolist() == [IGNORE] * 3
    assert documents_T.tolist() == [PADDING] * 3
    assert tokens_T.tolist() == positions_T.tolist() == [0] * 3
