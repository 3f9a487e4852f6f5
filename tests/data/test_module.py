import json
import warnings
from itertools import islice
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser

from lit_llm.data.batch import IGNORE, PADDING
from lit_llm.data.corpus import Conversations, TextFiles
from lit_llm.data.module import TextData
from lit_llm.data.parts import Part
from lit_llm.tokenizer import SentencePiece, Tokenizer, save_tokenizer


class Bytes(Tokenizer):
    """One token per byte after three control tokens and those of a chat."""

    special = {"pad": 0, "bos": 1, "eos": 2, "system": 3, "user": 4, "assistant": 5, "end": 6}
    vocab_size = 7 + 256
    fingerprint = "bytes"

    def encode(self, text):
        return [byte + 7 for byte in text.encode()]

    def token_bytes(self, id):
        return bytes([id - 7]) if id >= 7 else b""

    def save(self, folder):
        pass

    @classmethod
    def load(cls, folder):
        return cls()


class OtherBytes(Bytes):
    fingerprint = "other bytes"


@pytest.fixture
def make(tmp_path):
    """Data of 60 short documents, 5 rows of 9 tokens a step."""
    lines = [f"{i:02d} {'ab' * (i % 7)}" for i in range(60)]
    (tmp_path / "text.txt").write_text("\n".join(lines))

    def make(corpus=None, **settings):
        defaults = {
            "tokenizer": Bytes(),
            "seq_len": 9,
            "global_batch_size": 6,
            "prepare_workers": 0,
            "cache_dir": str(tmp_path / "cache"),
        }
        corpus = corpus or TextFiles(tmp_path / "text.txt", document="line")
        return TextData(corpus, **{**defaults, **settings})

    return make


def chat(tmp_path, answers):
    path = tmp_path / "chat.jsonl"
    records = [{"prompt": f"q{i}", "response": answer} for i, answer in enumerate(answers)]
    path.write_text("\n".join(map(json.dumps, records)))
    return Conversations(path)


def ready(data, stage="fit", **trainer):
    """The module as it is when Lightning asks for its loaders, with a stand-in for the Trainer."""
    ranks = trainer.pop("ranks", None)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    if ranks is not None:
        strategy.distributed_sampler_kwargs = dict(
            zip(("rank", "num_replicas"), ranks, strict=True)
        )
    defaults = {"global_step": 0, "overfit_batches": 0.0, "strategy": strategy}
    data.trainer = SimpleNamespace(**{**defaults, **trainer})
    data.prepare_data()
    data.setup(stage)
    return data


def tokens(loader, n):
    return [batch.tokens_BT.tolist() for batch in islice(loader, n)]


# -- what a run is made of -----------------------------------------------------------------------


def test_a_step_is_the_same_set_of_rows_however_many_devices_and_micro_batches_share_it(make):
    def step(micro, ranks):
        rows = []
        for rank in range(ranks):
            data = ready(make(micro_batch_size=micro), ranks=(rank, ranks), global_step=4)
            for batch in tokens(data.train_dataloader(), data.accumulate):
                assert len(batch) == (micro or 6 // ranks)
                rows += batch
        return sorted(rows)

    whole = step(None, 1)
    assert len(whole) == 6
    for micro, ranks in ((2, 1), (1, 3), (None, 2), (3, 2)):
        assert step(micro, ranks) == whole


def test_a_resumed_run_sees_what_the_uninterrupted_one_would_have_seen(make):
    whole = tokens(ready(make()).train_dataloader(), 30)
    assert tokens(ready(make(), global_step=17).train_dataloader(), 13) == whole[17:]
    assert tokens(ready(make(num_workers=1), global_step=17).train_dataloader(), 13) == whole[17:]


def test_the_run_seed_and_the_order_seed_each_change_the_order(make):
    def first(seed, order_seed):
        data = ready(make(order_seed=order_seed))
        data.seed = seed
        return tokens(data.train_dataloader(), 3)

    assert first(0, 0) == first(0, 0)
    assert first(0, 0) != first(5, 0)
    assert first(0, 0) != first(0, 5)


def test_overfitting_sees_the_same_batches_at_every_step(make):
    data = ready(make(), global_step=17, overfit_batches=1)
    assert tokens(data.train_dataloader(), 2) == tokens(ready(make()).train_dataloader(), 2)


@pytest.mark.parametrize(("options", "step", "position"), [({}, 4, 24), ({"overfit": 2}, 5, 6)])
def test_the_samples_of_a_step_are_those_that_it_was_made_of(make, options, step, position):
    # overfitting two batches for ever, step 5 is the second of them again
    data = ready(make(), global_step=step, overfit_batches=options.get("overfit", 0))
    data.trainer.num_training_batches = 2 if options else float("inf")
    at_step = next(islice(data.train_dataloader(), 1 if options else 0, None)).tokens_BT.tolist()
    samples = data.samples_of_step(step)
    assert [place for place, _, _ in samples] == list(range(position, position + 6))
    assert {name for _, name, _ in samples} == {"corpus"}
    assert [data._train[0][row].tokens_T.tolist() for _, _, row in samples] == at_step
    assert data.text_of("corpus", samples[0][2]) == data.tokenizer.decode(at_step[0])


def test_a_global_batch_that_does_not_split_is_refused(make):
    data = make(global_batch_size=10, micro_batch_size=4)
    with pytest.raises(ValueError, match=r"global_batch_size=10 is no multiple of the 4"):
        _ = data.accumulate
    with pytest.raises(ValueError, match=r"global_batch_size=2 is no multiple of the 3"):
        _ = ready(make(global_batch_size=2), ranks=(0, 3)).accumulate


def test_steps_and_their_tokens_are_counted_from_the_global_batch(make):
    data = make(global_batch_size=12, micro_batch_size=2)
    assert (data.accumulate, data.dp_size, data.dp_rank) == (6, 1, 0)
    assert data.nominal_tokens_per_step == 12 * 9
    assert ready(make(global_batch_size=12, micro_batch_size=2), ranks=(1, 3)).accumulate == 2


def test_every_token_of_validation_is_scored_once(make):
    data = ready(make(val_fraction=0.3, seq_len=10), "validate")
    seen = [
        token
        for batch in data.val_dataloader()
        for token in batch.tokens_BT[batch.documents_BT != PADDING].tolist()
    ]
    stored = data.prepared["corpus"].card["val"]["tokens"]
    assert (stored - 1) % 10 > 0, "no row is cut short: choose another length"
    assert len(seen) == stored - 1  # the last token has nothing after it
    assert tokens(data.test_dataloader(), 99) == tokens(data.val_dataloader(), 99)


def test_ranks_share_validation_without_overlap(make):
    def rows(rank, ranks):
        data = ready(make(val_fraction=0.5), "validate", ranks=(rank, ranks))
        batches = list(data.val_dataloader())
        kept = [row for batch in batches for row in batch.labels_BT.tolist()]
        return [row for row in kept if set(row) != {IGNORE}], len(batches)

    whole, _ = rows(0, 1)
    parts = [rows(rank, 2) for rank in range(2)]
    assert sorted(parts[0][0] + parts[1][0]) == sorted(whole)
    assert parts[0][1] == parts[1][1]


def test_without_validation_there_is_no_loader_and_validate_says_why(make):
    data = ready(make(val_fraction=0))
    assert data.val_dataloader() == []
    with pytest.raises(ValueError, match="val_fraction=0 keeps nothing to validate on"):
        data.setup("validate")


# -- what it is made from ------------------------------------------------------------------------


def test_conversations_are_packed_whole_and_text_is_concatenated(make, tmp_path):
    answers = ["yes", "no", "maybe so", "why", "never", "often", "what", "stop"] * 3
    data = ready(make(chat(tmp_path, answers), seq_len=40, deduplicate=False))
    batch = next(iter(data.train_dataloader()))
    assert batch.tokens_BT.shape == (6, 40)
    assert data.is_chat
    bos = data.tokenizer.special_id("bos")
    opens = batch.positions_BT.eq(0) & batch.documents_BT.ne(PADDING)
    assert batch.tokens_BT[opens].eq(bos).all()  # no conversation goes on in a second row
    assert not make().is_chat


def test_conversations_that_do_not_fit_are_reported(make, tmp_path):
    answers = ["yes", "no", "x" * 60, "why", "never", "often", "what", "stop"]
    data = make(chat(tmp_path, answers), seq_len=20, val_fraction=0)
    # bos user q 2 end assistant ... end: 7 tokens and the answer's
    with pytest.warns(UserWarning, match=r"1 of 8 conversations are longer than seq_len=20.*67"):
        ready(data)
    strict = make(chat(tmp_path, answers), seq_len=20, val_fraction=0, too_long="error")
    with pytest.raises(ValueError, match="1 of 8 conversations"):
        ready(strict)


def test_parts_take_turns_by_their_weights(make, tmp_path):
    (tmp_path / "x.txt").write_text("x" * 300)
    (tmp_path / "y.txt").write_text("y" * 900)
    parts = {name: Part(TextFiles(tmp_path / f"{name}.txt"), w) for name, w in (("x", 2), ("y", 1))}
    data = ready(make(parts, val_fraction=0, global_batch_size=3))
    x = ord("x") + 7
    for batch in islice(data.train_dataloader(), 50):
        assert int(batch.tokens_BT.eq(x).any(dim=1).sum()) == 2
    assert list(data.card) == ["x", "y"]


def test_parts_share_a_tokenizer_that_is_trained_on_all_of_them(make, tmp_path):
    (tmp_path / "x.txt").write_text("ant bee\n" * 50)
    (tmp_path / "y.txt").write_text("cat dog\n" * 50)
    parts = {name: Part(TextFiles(tmp_path / f"{name}.txt")) for name in ("x", "y")}
    data = make(parts, tokenizer=SentencePiece(vocab_size=281), val_fraction=0)
    assert data.vocab_size == 281
    for word in ("ant", "dog"):
        assert len(data.tokenizer.encode(word)) <= 2
    fingerprints = {prepared.tokenizer.fingerprint for prepared in data.prepared.values()}
    assert len(fingerprints) == 1


def test_attending_across_documents_makes_each_row_one_document(make):
    rows = next(iter(ready(make(attend_across_documents=True)).train_dataloader()))
    assert rows.documents_BT.eq(0).all()
    rows = next(iter(ready(make()).train_dataloader()))
    assert rows.documents_BT.gt(0).any()


def test_a_corpus_too_small_for_a_row_says_so(make):
    with pytest.raises(ValueError, match=r"do not fill a row.*5001: lower data.seq_len"):
        ready(make(seq_len=5000))


def test_token_bytes_count_utf8_bytes_and_nothing_for_control_tokens(make):
    sizes_V = make().token_bytes_V
    assert sizes_V.dtype == torch.int32
    assert sizes_V.tolist() == [0] * 7 + [1] * 256


def test_the_description_is_plain_and_names_the_prepared_folder(make):
    data = make()
    plain = data.describe()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["tokenizer"] == "bytes"
    assert plain["parts"]["corpus"]["prepared"] == data.prepared["corpus"].folder.name


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_prepared_tokens_are_verified_once_before_they_are_used(make, monkeypatch):
    tokens = make().prepared["corpus"].val / "00000-tokens.bin"
    flip(tokens)
    with pytest.raises(ValueError, match=r"val/00000-tokens\.bin is damaged: delete"):
        make().prepare_data()
    make(verify=False).prepare_data()
    flip(tokens)
    data = make()
    data.prepare_data()
    flip(tokens)
    data.prepare_data()  # Lightning asks again for each of fit, validate and test


def test_a_fit_does_not_begin_on_damaged_data(make, tmp_path):
    flip(make().prepared["corpus"].train / "00000-tokens.bin")
    with pytest.raises(ValueError, match=r"train/00000-tokens\.bin is damaged"):
        fit(make(), tmp_path, max_steps=1)


@pytest.mark.parametrize("found_here", [True, False])
def test_all_processes_of_a_run_learn_of_damage_that_one_has_found(make, found_here):
    if found_here:
        flip(make().prepared["corpus"].train / "00000-tokens.bin")
    told = []

    def agree(decision):
        told.append(decision)
        return False  # one process at least says no

    data = make()
    strategy = SimpleNamespace(reduce_boolean_decision=agree)
    data.trainer = SimpleNamespace(world_size=2, strategy=strategy)
    data.prepare_data()  # an error here would leave the others waiting in `setup`
    message = r"00000-tokens\.bin is damaged" if found_here else "another process found damaged"
    with pytest.raises(ValueError, match=message):
        data.setup("fit")
    assert told == [not found_here]


def test_what_verifying_cost_is_said_where_it_can_be_noticed(make, monkeypatch):
    said = []
    monkeypatch.setattr("lit_llm.data.module.rank_zero_info", said.append)
    make().prepare_data()
    assert said == []
    monkeypatch.setattr("lit_llm.data.source.NOTICEABLE_SECONDS", 0)
    make().prepare_data()
    assert said == ["verified 0.0 GB of tokens in 0 s"]


def test_the_fingerprint_follows_the_data_and_its_weights(make, tmp_path):
    (tmp_path / "x.txt").write_text("x" * 300)

    def parts(weight):
        corpora = {name: TextFiles(tmp_path / f"{name}.txt") for name in ("text", "x")}
        settings = {"val_fraction": 0, "cache_dir": str(tmp_path / "other")}
        return make({n: Part(c, weight) for n, c in corpora.items()}, **settings).fingerprint

    assert make().fingerprint == make(seq_len=5, cache_dir=str(tmp_path / "b")).fingerprint
    assert make().fingerprint == make().describe()["fingerprint"]
    assert len({make().fingerprint, make(val_fraction=0.3).fingerprint, parts(1), parts(2)}) == 4


def test_a_tokenizer_comes_from_the_configuration_or_from_a_checkpoint(make, tmp_path):
    save_tokenizer(
        trained := SentencePiece(vocab_size=281).train(["a bee and a bat"] * 9), tmp_path
    )
    assert make(tokenizer=None, tokenizer_from=str(tmp_path)).vocab_size == 281
    assert make(tokenizer=trained, tokenizer_from=str(tmp_path)).vocab_size == 281
    with pytest.raises(ValueError, match=r"there is no tokenizer: give data\.tokenizer"):
        make(tokenizer=None)
    with pytest.raises(ValueError, match=r"data\.tokenizer is another one"):
        make(tokenizer=OtherBytes(), tokenizer_from=str(tmp_path))
    with pytest.raises(ValueError, match=r"data\.tokenizer would be trained anew"):
        make(tokenizer=SentencePiece(vocab_size=281), tokenizer_from=str(tmp_path))


@pytest.mark.parametrize("name", ["seq_len", "global_batch_size", "micro_batch_size"])
def test_sizes_below_one_are_refused(make, name):
    with pytest.raises(ValueError, match=f"data.{name}=0 must be at least 1"):
        make(**{name: 0})


def test_several_corpora_can_be_given_in_yaml(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(L.LightningDataModule, "data")
    corpus = {"class_path": "lit_llm.data.corpus.TextFiles", "init_args": {"path": "a.txt"}}
    parts = {"a": {"corpus": corpus, "weight": 3}, "b": {"corpus": corpus}}
    tokenizer = {"class_path": "lit_llm.tokenizer.SentencePiece"}
    spec = {
        "class_path": "lit_llm.data.module.TextData",
        "init_args": {"corpus": parts, "tokenizer": tokenizer},
    }
    data = parser.instantiate_classes(parser.parse_object({"data": spec})).data
    assert [part.weight for part in data.parts.values()] == [3, 1]
    assert isinstance(data.parts["b"].corpus, TextFiles)


class Recorder(L.LightningModule):
    """A model that only notes what it is shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.train_rows, self.val_rows = [], []

    def training_step(self, batch, batch_idx):
        self.train_rows.append(batch.tokens_BT.tolist())
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.val_rows.append(batch.tokens_BT.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, tmp_path, ckpt_path=None, **settings):
    model = Recorder()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **settings,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return trainer, model


def test_lightning_resumes_with_the_next_step_and_epochs_go_on_where_they_were(make, tmp_path):
    settings = {"accumulate_grad_batches": 2}
    sizes = {"micro_batch_size": 3}
    _, whole = fit(make(**sizes), tmp_path, max_steps=6, **settings)
    assert whole.train_rows == tokens(ready(make(**sizes)).train_dataloader(), 12)

    first, half = fit(make(**sizes), tmp_path, max_steps=4, **settings)
    first.save_checkpoint(tmp_path / "half.ckpt")
    _, rest = fit(make(**sizes), tmp_path, tmp_path / "half.ckpt", max_steps=6, **settings)
    assert half.train_rows + rest.train_rows == whole.train_rows

    # Lightning asks for a new iteration at each of these three epochs.
    _, cut = fit(make(**sizes), tmp_path, max_epochs=3, limit_train_batches=4, **settings)
    assert cut.train_rows == whole.train_rows
    assert cut.val_rows[: len(cut.val_rows) // 3] * 3 == cut.val_rows
