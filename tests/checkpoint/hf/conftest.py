import pytest

from lit_llm.checkpoint.hf import prove, their_side, tokenizer_files, witness


@pytest.fixture
def witness_here(monkeypatch):
    """Let transformers answer in this process, which has imported it: another costs 4 seconds."""
    their_side.stop_the_clock()

    def ask(request):
        answer = {"version": "here", **their_side.tokenized(request)}
        return answer, their_side.logits(request)

    def ask_tokenizer(folder, chats=()):
        return witness.TokenizerFacts(**their_side.tokenizer_facts(str(folder), list(chats)))

    monkeypatch.setattr(prove, "ask", ask)
    monkeypatch.setattr(tokenizer_files, "ask_tokenizer", ask_tokenizer)
