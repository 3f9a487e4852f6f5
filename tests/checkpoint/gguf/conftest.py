import pytest

from lit_llm.tokenizer import SentencePiece
from tests.checkpoint.gguf import made


@pytest.fixture(scope="session")
def sentencepiece() -> SentencePiece:
    return made.sentencepiece()
