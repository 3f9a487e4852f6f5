import random

import numpy as np
import pytest

from lit_llm.data.duplicates import duplicates
from lit_llm.data.scan import DOCUMENT


def scan_folder(tmp_path, index, hashes):
    folder = tmp_path / str(index)
    folder.mkdir()
    made = np.zeros(len(hashes), DOCUMENT)
    made["high"], made["low"] = zip(*hashes, strict=True) if hashes else ((), ())
    made.tofile(folder / "documents.bin")
    return folder


@pytest.mark.parametrize("per_pass", [1000, 7, 1])
def test_of_equal_documents_only_the_first_stays(tmp_path, per_pass):
    draw = random.Random(0)
    units = [[(draw.randrange(4), draw.randrange(5)) for _ in range(n)] for n in (13, 0, 9, 21)]
    folders = [scan_folder(tmp_path, index, unit) for index, unit in enumerate(units)]

    seen, expected = set(), []
    for unit in units:
        expected.append([])
        for place, key in enumerate(unit):
            if key in seen:
                expected[-1].append(place)
            seen.add(key)

    found = duplicates(folders, per_pass)
    assert [places.tolist() for places in found] == expected
    assert all(places.dtype == np.uint32 for places in found)


def test_half_a_hash_in_common_is_no_duplicate(tmp_path):
    for index, hashes in enumerate([[(1, 1), (1, 2)], [(1, 1), (2, 1)]]):
        folder = scan_folder(tmp_path, index, hashes)
        assert [places.tolist() for places in duplicates([folder])] == [[]]
