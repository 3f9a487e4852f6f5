"""What tensor parallelism cannot split; a plan asks this too, so it imports nothing heavy."""

from __future__ import annotations

from lit_llm.model.config import GPTConfig
from lit_llm.model.lora import Lora


def check_divisible(
    config: GPTConfig, devices: int, *, compile: bool = False, lora: Lora | None = None
) -> None:
    """Refuse what does not split over a tensor-parallel group.

    Args:
        config: the whole network
        devices: of the group
        compile: whether its blocks are to be compiled
        lora: adapters that it has

    Raises:
        ValueError: names the first size or setting that stands in the way.
    """
    sizes = {
        "n_head": config.n_head,
        "n_kv_head": config.kv_heads,
        "d_ff": config.ff_dim,
        "data.seq_len": config.max_seq_len,
        "the padded vocabulary": config.padded_vocab_size,
    }
    for name, size in sizes.items():
        if size % devices:
            raise ValueError(
                f"{name}={size} does not split over tensor_parallel={devices} devices: change it, "
                "or take a number of devices that divides it (configs/trainer/fsdp.yaml needs none)"
            )
    if lora is not None and lora.dropout:
        raise ValueError(
            f"lora.dropout={lora.dropout} with tensor_parallel={devices}: the devices would draw "
            "equal masks for different inputs.\nGive --model.lora.dropout 0, or a trainer file "
            "without tensor parallelism"
        )
    if config.dropout:
        raise ValueError(
            f"dropout={config.dropout} with tensor_parallel={devices}: the devices would draw "
            "equal masks for different heads.\nGive --model.gpt.dropout 0, or a trainer file "
            "without tensor parallelism"
        )
    if compile:
        # torch 2.13: the backward pass of what is split loses its DTensors at a compiled block
        raise ValueError(
            f"model.compile=true with tensor_parallel={devices}: torch cannot compile blocks that "
            "are split yet.\nGive --model.compile false, or a trainer file without it"
        )
