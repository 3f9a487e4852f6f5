"""prepare, of any configuration that fit takes: by fit's own parser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning as L

from lit_llm.commands.fit import RunCLI, settled
from lit_llm.commands.parser import explained_errors, merged
from lit_llm.data.assemble import Prepared


def prepare_as_fit(command: str, arguments: list[str]) -> Iterable[Prepared]:
    """Prepare; gives nothing for data of the user's own class that has no prepared folders."""
    configuration, flags, _ = settled(command, arguments)
    with explained_errors(configuration, flags):
        cli = PrepareCLI(args=["fit", *merged(configuration), *flags])
    prepared: dict[Any, Prepared] = getattr(cli.data, "prepared", {})
    return prepared.values()


class PrepareCLI(RunCLI):
    """Reads a configuration as fit does, and stops when the data is ready."""

    def before_instantiate_classes(self) -> None:
        """Nothing: whether the run exists does not matter."""

    def instantiate_classes(self) -> None:
        config = self.parser.instantiate_classes(self.config)
        self.data: L.LightningDataModule = config["fit"]["data"]

    def after_instantiate_classes(self) -> None:
        self.data.prepare_data()

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing: there is no training."""
