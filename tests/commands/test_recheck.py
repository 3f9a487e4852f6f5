import json

from lit_llm.commands.recheck import beside_the_log


def checkpoint(run, step):
    folder = run / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text(json.dumps({"format": 1, "step": step}))
    return folder


def test_a_loss_is_compared_with_the_one_logged_at_the_same_step(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,train/loss,val/loss\n5,2.5,\n5,,2.25\n10,2.0,\n10,,1.75\n"
    )
    at_5 = checkpoint(tmp_path, 5)
    assert beside_the_log(at_5, {"val/loss": 2.25}) == (
        "val/loss 2.25 is what the run logged at step 5"
    )
    assert "but the run logged 2.25 at step 5" in beside_the_log(at_5, {"val/loss": 2.26})
    assert "but the run logged 1.75 at step 10" in beside_the_log(
        checkpoint(tmp_path, 10), {"val/loss": 2.25}
    )


def test_a_step_without_validation_has_nothing_to_compare_with(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/loss\n5,2.5,\n")
    said = beside_the_log(checkpoint(tmp_path, 5), {"val/loss": 2.25})
    assert said == "the run logged no val/loss at step 5"
    assert beside_the_log(checkpoint(tmp_path / "elsewhere", 5), {"val/loss": 2.25}) is None
