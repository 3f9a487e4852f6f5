import json

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from lit_llm.callbacks import Checkpoint, Samples
from lit_llm.callbacks import samples as module
from lit_llm.callbacks.continuations import continue_prompts
from lit_llm.callbacks.samples import read_samples
from lit_llm.generation.sampling import Sampling

SHORT = Sampling(max_new_tokens=4, temperature=1.0)


def read(tmp_path):
    return read_samples(tmp_path / "run" / "samples.jsonl")


def test_every_validation_continues_the_same_prompts(fit, tmp_path):
    fit([Samples(n_prompts=2, prompt_tokens=5, sampling=SHORT)])
    rows = read(tmp_path)
    assert [row["step"] for row in rows] == [3, 3, 6, 6]
    assert rows[0]["prompt"] == rows[2]["prompt"] != rows[1]["prompt"]
    assert [len(row["prompt"]) for row in rows] == [4] * 4  # bos is no text


def test_given_prompts_are_continued_every_n_steps(fit, tmp_path):
    fit([Samples(every_n_steps=2, prompts=["abc"], sampling=SHORT)], limit_val_batches=0)
    assert [(row["step"], row["prompt"]) for row in read(tmp_path)] == [
        (2, "abc"),
        (4, "abc"),
        (6, "abc"),
    ]


def test_a_run_learns_the_same_with_and_without_samples(fit, tiny_lm, monkeypatch):
    def noisy(*args):
        torch.rand(7)  # as a user's attention may
        return continue_prompts(*args)

    monkeypatch.setattr(module, "continue_prompts", noisy)

    class FromGlobalNoise(tiny_lm):  # its dropout goes on with the global random numbers
        def on_train_batch_end(self, outputs, batch, batch_idx):
            assert all(module.training for module in self.modules())

    samples = Samples(every_n_steps=1, prompts=["ab"], sampling=SHORT)
    torch.manual_seed(9)
    _, plain = fit([], model=FromGlobalNoise(dropout=0.5))
    _, sampled = fit([samples], model=FromGlobalNoise(dropout=0.5))
    for ours, theirs in zip(sampled.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_model_that_sees_both_directions_is_left_alone(fit, tiny_lm, tmp_path, caplog):
    model = tiny_lm()
    model.objective.bidirectional = True
    caplog.set_level("INFO")
    fit([Samples(sampling=SHORT)], model=model)
    assert read(tmp_path) == []
    assert "no samples: Objective sees what comes after a token" in caplog.text


def test_a_resumed_run_drops_the_samples_that_it_makes_again(fit, tmp_path):
    fit([Samples(n_prompts=1, sampling=SHORT), Checkpoint()], max_steps=9)
    at_6 = str(tmp_path / "run" / "step-00000006")
    fit([Samples(n_prompts=1, sampling=SHORT)], max_steps=9, ckpt_path=at_6)
    assert [row["step"] for row in read(tmp_path)] == [3, 6, 9]


def test_a_new_run_in_an_old_folder_moves_the_old_samples_aside(fit, tmp_path):
    for _ in range(2):
        fit([Samples(n_prompts=1, sampling=SHORT)], max_steps=3)
    assert [row["step"] for row in read(tmp_path)] == [3]
    assert (tmp_path / "run" / "samples-1.jsonl").exists()


def test_fast_dev_run_writes_nothing(fit, tmp_path):
    fit([Samples(n_prompts=1, sampling=SHORT)], fast_dev_run=True, val_check_interval=1)
    assert read(tmp_path) == []


def test_a_line_that_was_cut_off_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"step": 1, "text": "a\u2028b"}, ensure_ascii=False) + '\n{"step": ')
    assert read_samples(path) == [{"step": 1, "text": "a\u2028b"}]


def test_a_distance_of_zero_is_refused():
    with pytest.raises(ValueError, match="every_n_steps=0 is no distance"):
        Samples(every_n_steps=0)


def test_where_each_process_has_the_whole_model_rank_0_writes_alone(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(L.Trainer, "is_global_zero", False)
    monkeypatch.setattr(module, "continue_prompts", pytest.fail)
    fit([Samples(n_prompts=1, sampling=SHORT)])
    assert read(tmp_path) == []


def test_where_a_model_is_spread_all_ranks_write_and_rank_0_keeps(fit, tmp_path, monkeypatch):
    asked = []

    def lockstep(gpt, prompts, sampling, stop):
        asked.append(len(prompts))
        return continue_prompts(gpt, prompts, sampling, stop)

    monkeypatch.setattr(module, "is_spread", lambda model: True)
    monkeypatch.setattr(module, "continue_in_lockstep", lockstep)
    fit([Samples(n_prompts=2, sampling=SHORT)], max_steps=3)
    assert [row["step"] for row in read(tmp_path)] == [3, 3]

    monkeypatch.setattr(L.Trainer, "is_global_zero", False)
    fit([Samples(n_prompts=2, sampling=SHORT)], max_steps=3)
    assert asked == [2, 2]
    assert len(read(tmp_path)) == 2  # and no third


class SplitMatrices(SingleDeviceStrategy):
    tensor_parallel_size = 2


@pytest.mark.parametrize("asked", [{"every_n_steps": 2}, {"prompts": ["ab"]}])
def test_samples_of_split_matrices_are_refused_in_one_line(fit, tiny_lm, asked):
    model = tiny_lm()
    with pytest.raises(ValueError, match="tensor_parallel=2 splits the model's matrices") as error:
        fit([Samples(**asked)], model=model, strategy=SplitMatrices("cpu"))
    assert "\n" not in str(error.value)
    assert model.trainer.global_step == 0


def test_without_being_asked_for_split_matrices_write_nothing_and_say_so(fit, tmp_path, caplog):
    caplog.set_level("INFO")
    fit([Samples(sampling=SHORT)], strategy=SplitMatrices("cpu"))
    assert read(tmp_path) == []
    assert "no samples: tensor_parallel=2 splits the model's matrices" in caplog.text


def test_where_fsdp2_computes_in_bfloat16_the_cache_is_read_in_bfloat16_too(
    fit, tmp_path, monkeypatch
):
    class Narrow(SingleDeviceStrategy):
        param_dtype = torch.bfloat16

    def in_autocast(*args):
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        return continue_prompts(*args)

    monkeypatch.setattr(module, "continue_prompts", in_autocast)
    fit([Samples(n_prompts=1, sampling=SHORT)], strategy=Narrow("cpu"))
    assert [row["step"] for row in read(tmp_path)] == [3, 6]
