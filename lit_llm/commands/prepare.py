"""prepare: the tokenizer and the shards of a recipe, without training."""

from __future__ import annotations

import lightning as L

from lit_llm.commands.fit import RunCLI, settled
from lit_llm.commands.parser import explained_errors, merged


def run(command: str, arguments: list[str]) -> None:
    """Run prepare; takes the same configuration as fit."""
    configuration, flags, _ = settled(command, arguments)
    with explained_errors(configuration, flags):
        PrepareCLI(args=["fit", *merged(configuration), *flags])


class PrepareCLI(RunCLI):
    """Reads a configuration as fit does, and stops when the data is ready."""

    def before_instantiate_classes(self) -> None:
        """Nothing: whether the run exists does not matter."""

    def instantiate_classes(self) -> None:
        config = self.parser.instantiate_classes(self.config)
        self.data: L.LightningDataModule = config["fit"]["data"]

    def after_instantiate_classes(self) -> None:
        self.data.prepare_data()
        for prepared in getattr(self.data, "prepared", {}).values():
            print((prepared.folder / "card.md").read_text(encoding="utf-8"))

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing: there is no training."""
