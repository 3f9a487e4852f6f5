"""prepare: the tokenizer and the shards of a recipe, without training."""

from __future__ import annotations

import lightning as L
from jsonargparse import set_parsing_settings

from lit_llm.commands.fit import RunCLI, adopt_checkpoint
from lit_llm.commands.launch import settle
from lit_llm.commands.parser import explained_errors, merged_file, read, refuse_linked
from lit_llm.commands.quiet import quiet_libraries


def run(command: str, arguments: list[str]) -> None:
    """Run prepare; takes the same configuration as fit."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    quiet_libraries()
    configuration, flags = read(arguments)
    refuse_linked(configuration)
    adopt_checkpoint(configuration, flags)
    settle(configuration, flags)
    with explained_errors(configuration, flags), merged_file(configuration) as config:
        PrepareCLI(args=["fit", *config, *flags])


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
