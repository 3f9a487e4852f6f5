import pytest

from lit_llm.data.corpus.base import Text, Unit
from lit_llm.data.duplicates import duplicates
from lit_llm.data.sample import SampleJob, choose, sample
from lit_llm.data.scan import ScanJob, read_documents, scan
from lit_llm.data.split import held_out


class Listed(Unit):
    def __init__(self, name, texts):
        self.name = name
        self.texts = texts

    def fingerprint(self):
        return repr(self.texts)

    def read(self):
        for index, text in enumerate(self.texts):
            yield Text(text, f"{self.name}:{index}")


UNITS = [
    Listed("a", [f"text {i} of a, " * (i % 5 + 1) for i in range(40)]),
    Listed("b", [f"text {i} of b, " * (i % 3 + 1) for i in range(25)] + ["text 1 of a, " * 2]),
]


@pytest.fixture
def scans(tmp_path):
    for unit in UNITS:
        scan(ScanJob(unit, unit.fingerprint(), tmp_path / unit.name))
    return [tmp_path / unit.name for unit in UNITS]


def texts(scans, max_bytes, fraction=0.0, tail=0.0):
    chosen = choose(scans, duplicates(scans), max_bytes, fraction, seed=1)
    return [
        text
        for unit, (places, allowed) in zip(UNITS, chosen, strict=True)
        for text in sample(SampleJob(unit, len(unit.texts), places, allowed, tail))
    ]


def test_everything_is_taken_where_it_fits_but_no_duplicate(scans):
    assert texts(scans, 10**6) == UNITS[0].texts + UNITS[1].texts[:-1]


def test_the_sample_has_the_asked_size_and_is_the_same_each_time(scans):
    taken = texts(scans, 300)
    assert sum(map(len, taken)) == 300
    assert taken == texts(scans, 300)
    assert any("of a" in text for text in taken)
    assert any("of b" in text for text in taken)


def test_a_larger_sample_contains_the_smaller(scans):
    larger = " ".join(texts(scans, 600))
    assert all(text in larger for text in texts(scans, 250))


def test_no_held_out_document_is_in_it(scans):
    taken = set(texts(scans, 10**6, fraction=0.3))
    for unit, folder in zip(UNITS, scans, strict=True):
        val = held_out(read_documents(folder), 0.3, 1)
        assert val.any()
        assert not taken & {t for t, held in zip(unit.texts, val, strict=True) if held}


def test_held_out_tails_are_not_in_it(scans):
    assert (
        texts(scans, 10**6, tail=0.5)[0] == "text 0"
    )  # int(13 * 0.5) characters of "text 0 of a, "


def test_one_long_text_is_cut_to_size(tmp_path):
    unit = Listed("long", ["é" * 1000])
    scan(ScanJob(unit, unit.fingerprint(), tmp_path / "long"))
    ((places, allowed),) = choose([tmp_path / "long"], duplicates([tmp_path / "long"]), 101, 0.0, 0)
    assert sample(SampleJob(unit, 1, places, allowed, 0.0)) == ["é" * 50]
