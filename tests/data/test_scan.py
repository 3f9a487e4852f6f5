import pytest

from lit_llm.data.corpus.base import Bad, Text, Unit
from lit_llm.data.scan import ScanJob, good_documents, read_bad, read_documents, read_sums, scan


class Changing(Unit):
    name = "changing"

    def __init__(self, contents):
        self.contents = contents
        self.reads = 0

    def fingerprint(self):
        return str(self.reads > 0 and len(self.contents) > 1)

    def read(self):
        self.reads += 1
        for text in self.contents[min(self.reads, len(self.contents)) - 1]:
            yield Bad("c:2", "torn") if text is None else Text(text, "c:1")


def test_a_scan_counts_hashes_and_lists(tmp_path):
    unit = Changing([["ab", None, "é", ""]])
    scan(ScanJob(unit, "False", tmp_path / "s"))
    assert read_sums(tmp_path / "s") == {"documents": 2, "conversations": 0, "bytes": 4, "bad": 2}
    assert read_documents(tmp_path / "s")["bytes"].tolist() == [2, 2]
    assert [bad["reason"] for bad in read_bad(tmp_path / "s")] == ["torn", "empty text"]


def test_a_unit_that_changes_while_it_is_read_leaves_no_scan(tmp_path):
    with pytest.raises(ValueError, match="changing changed while it was read"):
        scan(ScanJob(Changing([["a"], ["b"]]), "False", tmp_path / "s"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("second", [["a"], ["a", "b", "c"]])
def test_a_unit_that_yields_another_number_the_second_time_is_refused(second):
    unit = Changing([["a", "b"], second])
    assert len(list(good_documents(unit, 2))) == 2
    with pytest.raises(ValueError, match="held 2 documents at first"):
        list(good_documents(unit, 2))
