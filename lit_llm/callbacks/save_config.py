"""The run's configuration, as config.yaml in its folder."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import yaml


class SaveConfig(L.Callback):
    """Writes what `LitLLM.run_config` holds, once training really begins.

    Not earlier: a configuration that is refused must not replace that of the run it was refused
    for.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        config = getattr(pl_module, "run_config", None)
        if config is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "config.yaml.tmp"
        temporary.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        temporary.replace(folder / "config.yaml")
