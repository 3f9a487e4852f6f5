"""What is done to a finished network from outside, so that the model's own file stays plain."""

from functools import partial
from typing import cast

from torch.utils.checkpoint import checkpoint

from lit_llm.model.gpt import GPT, Block


def checkpoint_activations(gpt: GPT) -> None:
    """Keep only each block's input for the backward pass (Chen et al., 2016, arXiv:1604.06174)."""
    for block in gpt.blocks:
        # Replacing `forward` keeps the parameters' names, which a wrapper module would change.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compile_blocks(gpt: GPT) -> None:
    """Compile each block in place; blocks are alike, so one compilation serves all of them."""
    for block in gpt.blocks:
        cast(Block, block).compile()  # not torch.compile(block): that renames every parameter
