import pytest

from lit_llm.checkpoint.hf import prove, their_side


@pytest.fixture
def witness_here(monkeypatch):
    """Let transformers answer in this process, which has imported it: another costs 6 seconds."""

    def ask(request):
        answer = {"version": "here", **their_side._tokenized(request)}
        return answer, their_side._logits(request)

    monkeypatch.setattr(prove, "_ask", ask)
