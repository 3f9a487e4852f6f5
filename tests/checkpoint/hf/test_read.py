"""Import: what transformers computes, a checkpoint of ours computes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lit_llm.checkpoint.bundle import load_model, read_meta
from lit_llm.checkpoint.hf import prove, tokenizer_files
from lit_llm.checkpoint.hf.names import from_hf
from lit_llm.checkpoint.hf.prove import NotEqual
from lit_llm.checkpoint.hf.read import import_hf
from lit_llm.checkpoint.hf.write import export_hf
from lit_llm.checkpoint.manifest import verify
from lit_llm.generation.generate import generate
from lit_llm.generation.sampling import Sampling
from lit_llm.model.gpt import GPT
from lit_llm.tokenizer import Message
from tests.checkpoint.hf.published import CHATML, publish

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("family", ["Llama-3", "Mistral", "Qwen2", "Qwen3"])
def test_a_published_model_becomes_a_checkpoint_that_generates_the_same(
    family, tmp_path, witness_here
):
    theirs = publish(tmp_path / "theirs", family)
    told = import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert any("logits of" in line for line in told)
    verify(tmp_path / "ours")
    gpt, bundle = load_model(tmp_path / "ours")
    saved = load_file(tmp_path / "theirs/model.safetensors")
    assert saved.keys() <= {*theirs.state_dict()}
    for name, tensor in saved.items():
        assert torch.equal(bundle.state[from_hf(name)], tensor)
    prompts = [[5, 6, 7], list(range(30, 70))]
    found = generate(gpt, prompts, Sampling(temperature=0, max_new_tokens=20))
    for prompt, row in zip(prompts, found, strict=True):
        expected = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=None
        )
        assert row.ids == expected[0, len(prompt) :].tolist()


def test_transformers_answers_in_a_process_of_its_own(tmp_path):
    publish(tmp_path / "theirs", "Qwen3")
    told = import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert f"equal to transformers {transformers.__version__}" in told[-2]
    assert "1,100 texts and 6 chats have the same tokens" in told[-1]
    meta = read_meta(tmp_path / "ours")
    assert (meta["chat"], meta["step"], meta["bidirectional"]) == (True, 0, False)
    assert meta["imported"]["from"] == "theirs"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_of_16_bits_stay_what_they_are(dtype, tmp_path, witness_here):
    publish(tmp_path / "theirs", "Llama-2", dtype=dtype)
    told = import_hf(tmp_path / "theirs", tmp_path / "ours")
    weights = load_file(tmp_path / "ours/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    assert any(line.startswith("in 16 bits") for line in told)


def test_weights_of_two_kinds_are_kept_in_the_wider_one(tmp_path, witness_here):
    publish(tmp_path / "theirs", "Llama-2", dtype=torch.bfloat16)
    file = tmp_path / "theirs/model.safetensors"
    weights = load_file(file)
    weights[NORM] = weights[NORM].float() + 1e-3  # which bfloat16 cannot hold
    save_file(weights, file)
    told = import_hf(tmp_path / "theirs", tmp_path / "ours")
    kept = load_file(tmp_path / "ours/model.safetensors")
    assert torch.equal(kept["norm.weight"], weights[NORM])
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert any("of several kinds" in line for line in told)


def test_shards_are_put_together(tmp_path, witness_here):
    publish(tmp_path / "theirs", "SmolLM2", max_shard_size="60KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert load_model(tmp_path / "ours")[0].config.tie_embeddings


def test_a_pickle_of_tensors_is_read_and_nothing_else(tmp_path, witness_here):
    publish(tmp_path / "theirs", "Llama-2")
    file = tmp_path / "theirs/model.safetensors"
    torch.save(load_file(file), tmp_path / "theirs/pytorch_model.bin")
    file.unlink()
    import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert (tmp_path / "ours/model.safetensors").is_file()


def test_a_template_of_turns_becomes_ours_and_its_text_is_kept(tmp_path, witness_here):
    publish(tmp_path / "theirs", "Qwen3")
    import_hf(tmp_path / "theirs", tmp_path / "ours")
    _, bundle = load_model(tmp_path / "ours")
    template, tokenizer = bundle.tokenizer.chat_template, bundle.tokenizer
    assert template.source == CHATML
    ids = template.prompt(tokenizer, [Message("user", "<|im_end|>")])
    end = tokenizer.special_id("end")
    assert ids.count(end) == 1  # the turn's own, not the one that was typed
    assert template.stop_ids(tokenizer) == {end}


def test_a_template_that_is_more_than_turns_is_left_out_and_said(tmp_path, witness_here):
    odd = CHATML.replace("message['content']", "message['content'] | upper")
    publish(tmp_path / "theirs", "Qwen3", chat=odd)
    told = import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert any("chat template is left out" in line for line in told)
    assert read_meta(tmp_path / "ours")["chat"] is False


def test_a_text_begins_as_transformers_begins_it(tmp_path, witness_here):
    publish(tmp_path / "theirs", "Qwen3")
    import_hf(tmp_path / "theirs", tmp_path / "ours")
    tokenizer = load_model(tmp_path / "ours")[1].tokenizer
    assert tokenizer.document(tokenizer.encode("bread")) == tokenizer.encode("bread")


def test_another_computation_is_found_and_nothing_is_left(tmp_path, witness_here, monkeypatch):
    publish(tmp_path / "theirs", "Llama-2")
    rope = prove.GPT._tabulate_rope

    def wrong(self):
        rope(self)
        self.sin_SE.neg_()  # turns the other way

    monkeypatch.setattr(prove.GPT, "_tabulate_rope", wrong)
    with pytest.raises(NotEqual, match="logits differ from those of transformers by up to"):
        import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_other_tokens_are_found_and_nothing_is_left(tmp_path, witness_here, monkeypatch):
    publish(tmp_path / "theirs", "Llama-2", chat=None)
    answer = prove.ask

    def other(request):
        found, logits = answer(request)
        found["texts"][17] = [*found["texts"][17], 9]
        return found, logits

    monkeypatch.setattr(prove, "ask", other)
    with pytest.raises(NotEqual, match="the tokenizers differ at token"):
        import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def _index_without_shard(folder):
    shutil.rmtree(folder)
    publish(folder, "Llama-2", max_shard_size="60KB")
    next(iter(folder.glob("model-00002*"))).unlink()


def _index_with_strange_file(folder):
    _index_without_shard(folder)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = dict.fromkeys(content["weight_map"], "../../etc/passwd")
    index.write_text(json.dumps(content))


def _cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _with_weights(change):
    def spoil(folder):
        file = folder / "model.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file)

    return spoil


def _with_config(**changed):
    def spoil(folder):
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))

    return spoil


def _pickle_that_runs(folder):
    class Harm:
        def __reduce__(self):
            return (print, ("harm",))

    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Harm()}, folder / "pytorch_model.bin")


def _remove(name):
    return lambda folder: (folder / name).unlink()


def _write(name, text):
    return lambda folder: (folder / name).write_text(text)


def _set(name, value):
    return _with_weights(lambda weights: weights.update({name: value(weights[name])}))


HEAD, NORM = "lm_head.weight", "model.norm.weight"
UP = "model.layers.1.mlp.up_proj.weight"
BAD = {
    "no folder": (shutil.rmtree, "no folder .*theirs: give one"),
    "no config.json": (_remove("config.json"), "holds no config.json"),
    "config.json is no JSON": (_write("config.json", "{"), "config.json is no JSON file"),
    "config.json is a list": (_write("config.json", "[]"), "holds list, not an object"),
    "another architecture": (_with_config(architectures=["T5Model"]), "T5Model.* is not supported"),
    "rope of a kind we lack": (_with_config(rope_parameters={"rope_type": "yarn"}), "yarn"),
    "heads that do not divide": (_with_config(num_key_value_heads=5), "contradicts itself"),
    "a width that is not the weights'": (_with_config(hidden_size=60), "has shape .*, not"),
    "fewer layers than weights": (_with_config(num_hidden_layers=2), "is unknown to it"),
    "more layers than weights": (_with_config(num_hidden_layers=4), "is missing"),
    "quantized": (_with_config(quantization_config={"bits": 4}), "quantization_config"),
    "no weights": (_remove("model.safetensors"), "no weights in"),
    "a truncated file": (_cut, "is damaged or cut off"),
    "a missing shard": (_index_without_shard, "is not whole: model-00002.* is missing"),
    "a shard elsewhere": (_index_with_strange_file, "which is no file beside it"),
    "a missing tensor": (_with_weights(lambda w: w.pop(UP)), f"{UP} is missing"),
    "a tensor too many": (_with_weights(lambda w: w.update(x=w[NORM].clone())), "x has no place"),
    "a wrong shape": (_set(UP, lambda t: t[:-1].clone()), f"{UP} has shape"),
    "NaN": (_set(UP, lambda t: t.index_fill(0, torch.tensor(3), torch.nan)), f"{UP} holds NaN"),
    "infinity": (_set(NORM, lambda t: t / 0), f"{NORM} holds NaN or infinity"),
    "whole numbers": (_set(UP, lambda t: t.to(torch.int8)), "quantized weights are not supported"),
    "a pickle that runs code": (_pickle_that_runs, "nothing of it was executed"),
    "tied, but different": (_with_config(tie_word_embeddings=True), "differ: one of them is wrong"),
    "no tokenizer": (_remove("tokenizer.json"), "no tokenizer in"),
    "a tokenizer that is none": (_write("tokenizer.json", "{}"), "cannot use .*theirs"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_refused_in_few_words_and_nothing_is_written(
    case, tmp_path, cli, capfd, monkeypatch
):
    spoil, said = BAD[case]
    publish(tmp_path / "theirs", "Llama-2")
    spoil(tmp_path / "theirs")
    monkeypatch.setattr(prove, "ask", lambda request: pytest.fail("found too late"))
    before = sorted(tmp_path.rglob("*"))
    done = cli("import", "--from", tmp_path / "theirs", "--out", tmp_path / "out/ours")
    assert done.code == 2
    lines = done.err.splitlines()
    assert len(lines) <= 3
    assert re.search(said, done.err), done.err
    assert "harm" not in capfd.readouterr().out
    assert sorted(tmp_path.rglob("*")) in (before, sorted([*before, tmp_path / "out"]))


def test_an_existing_folder_is_not_written_over(tmp_path, cli, witness_here):
    publish(tmp_path / "theirs", "Llama-2")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/notes.txt").write_text("mine")
    done = cli("import", "--from", tmp_path / "theirs", "--out", tmp_path / "ours")
    assert done.code == 2
    assert (tmp_path / "ours/notes.txt").read_text() == "mine"


DATED = "{{ '<|im_start|>system\n' + strftime_now('%d %b %Y') + '<|im_end|>\n' }}" + CHATML
THINKING = CHATML.replace(
    "message['content'] +", "message['content'].split('</think>')[-1].lstrip('\n') +"
)


def test_a_template_that_says_the_date_is_taken_with_a_fixed_one(tmp_path):
    publish(tmp_path / "theirs", "Qwen3", chat=DATED)
    told = import_hf(tmp_path / "theirs", tmp_path / "ours")  # transformers in its own process
    assert any("it says 26 Jul 2024 always" in line for line in told)
    assert "6 chats have the same tokens" in told[-1]


def test_a_template_that_hides_thoughts_is_taken_with_a_note(tmp_path, witness_here):
    publish(tmp_path / "theirs", "Qwen3", chat=THINKING)
    told = import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert any("changes answers that think aloud" in line for line in told)
    assert read_meta(tmp_path / "ours")["chat"] is True


def test_a_template_that_only_transformers_understands_is_left_out(
    tmp_path, witness_here, monkeypatch
):
    publish(tmp_path / "theirs", "Qwen3")
    facts = tokenizer_files.ask_tokenizer

    def other(folder, chats=()):
        found = facts(folder, chats)
        return found._replace(written=[None, *found.written[1:]])

    monkeypatch.setattr(tokenizer_files, "ask_tokenizer", other)
    told = import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert any("transformers writes a conversation in another way" in line for line in told)


def test_a_chat_template_is_given_where_a_model_has_none(tmp_path, cli, witness_here):
    publish(tmp_path / "theirs", "Llama-2", chat=None)
    (tmp_path / "chatml.jinja").write_text(CHATML)
    given = ("--chat_template", tmp_path / "chatml.jinja")
    done = cli("import", "--from", tmp_path / "theirs", "--out", tmp_path / "ours", *given)
    assert done.code == 0, done.err
    assert "which is not compared with anything" in done.out
    tokenizer = load_model(tmp_path / "ours")[1].tokenizer
    assert tokenizer.chat_template.user.before == "<|im_start|>user\n"
    given = ("--chat_template", tmp_path / "nowhere.jinja")
    done = cli("import", "--from", tmp_path / "theirs", "--out", tmp_path / "two", *given)
    assert done.code == 2
    assert "no chat template" in done.err


def test_what_ends_an_answer_there_ends_it_here_and_goes_out_again(tmp_path, witness_here):
    publish(tmp_path / "theirs", "Qwen3")
    said = json.dumps({"eos_token_id": [2, 0]})  # <|im_end|> and <|endoftext|>, the padding
    (tmp_path / "theirs/generation_config.json").write_text(said)
    import_hf(tmp_path / "theirs", tmp_path / "ours")
    tokenizer = load_model(tmp_path / "ours")[1].tokenizer
    assert tokenizer.stop_ids(chat=True) == {0, 2}
    assert tokenizer.unsaid_ids(331, chat=True) == {1, *range(tokenizer.vocab_size, 331)}
    export_hf(tmp_path / "ours", tmp_path / "back")
    back = json.loads((tmp_path / "back/generation_config.json").read_text())
    assert back["eos_token_id"] == [0, 2]
    assert back["suppress_tokens"] == [1]


def test_no_code_of_the_folder_runs_whatever_is_typed(tmp_path):
    publish(tmp_path / "theirs", "Qwen3")
    settings = tmp_path / "theirs/tokenizer_config.json"
    harm = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **harm}))
    mark = tmp_path / "it ran"
    (tmp_path / "theirs/evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil:\n    pass\n")
    command = [sys.executable, "cli.py", "import", "--from", tmp_path / "theirs"]
    subprocess.run(
        [*command, "--out", tmp_path / "ours"], cwd=ROOT, input="y\n" * 9, text=True, timeout=120
    )
    assert not mark.exists()


def test_our_logits_that_are_no_numbers_are_found(tmp_path, witness_here, monkeypatch):
    publish(tmp_path / "theirs", "Llama-2")
    project = GPT.project
    monkeypatch.setattr(GPT, "project", lambda self, hidden: project(self, hidden) * torch.nan)
    with pytest.raises(NotEqual, match="logits are not finite, ours"):
        import_hf(tmp_path / "theirs", tmp_path / "ours")


def test_a_pickle_from_before_the_zip_format_is_read_too(tmp_path, witness_here):
    publish(tmp_path / "theirs", "Llama-2")
    file = tmp_path / "theirs/model.safetensors"
    old = tmp_path / "theirs/pytorch_model.bin"
    torch.save(load_file(file), old, _use_new_zipfile_serialization=False)
    file.unlink()
    import_hf(tmp_path / "theirs", tmp_path / "ours")
    assert (tmp_path / "ours/model.safetensors").is_file()
