"""What a worker gets to encode with; tests/data/test_prepare.py sees what it writes."""

import pickle

from lit_llm.data import encode
from lit_llm.data.encode import Parcel
from lit_llm.tokenizer import Tokenizer
from tests.tokenizer.test_base import Letters


def test_a_tokenizer_is_unpacked_once_for_all_jobs():
    encode._unpickled.cache_clear()
    jobs = [pickle.loads(pickle.dumps(Parcel(Letters()))) for _ in range(3)]
    opened = [job.open() for job in jobs]
    assert isinstance(opened[0], Tokenizer)
    assert opened[0].encode("ab") == [97, 98]
    assert opened[0] is opened[1] is opened[2]
