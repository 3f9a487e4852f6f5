"""A decoder-only transformer in plain PyTorch.

Tensors carry their shape as a suffix, after Noam Shazeer:
https://medium.com/@NoamShazeer/shape-suffixes-good-coding-style-f836e72e24fd
The letters mean the same in every file of lit_llm:

    B  sequences of the batch             D  d_model, width of the residual stream
    T  query positions                    H  query heads
    S  key positions: T, or cache slots   K  key/value heads
    V  vocabulary                         E  head_dim, channels of one head
    F  d_ff, width inside the MLP
"""
