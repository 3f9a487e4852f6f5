"""A GGUF of random weights, as llama.cpp reads a Llama; the vocabulary is single letters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.peers.generate import Sizes

NORMAL, UNKNOWN, CONTROL = 1, 2, 3  # kinds of tokens


def write_gguf(path: Path, sizes: Sizes) -> None:
    """Write a network with tied embeddings; norms stay float32, as llama.cpp's converter has it."""
    import gguf

    bf16 = sizes.dtype == "bfloat16"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(sizes.seq_len)
    writer.add_embedding_length(sizes.d_model)
    writer.add_block_count(sizes.n_layer)
    writer.add_feed_forward_length(sizes.d_ff)
    writer.add_head_count(sizes.n_head)
    writer.add_head_count_kv(sizes.n_head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(sizes.d_model // sizes.n_head)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(sizes.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if bf16 else gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(
        [b"<unk>", b"<s>", b"</s>", *(b"t%d" % i for i in range(3, sizes.vocabulary))]
    )
    writer.add_token_scores([0.0] * sizes.vocabulary)
    writer.add_token_types([UNKNOWN, CONTROL, CONTROL] + [NORMAL] * (sizes.vocabulary - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    random = np.random.default_rng(1)

    def add(name: str, *shape: int) -> None:
        values: Any = random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        if bf16:
            values = gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16)
            writer.add_tensor(name, values, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, values)

    def add_norm(name: str) -> None:
        writer.add_tensor(name, np.ones(sizes.d_model, np.float32))

    d, f = sizes.d_model, sizes.d_ff
    add("token_embd.weight", sizes.vocabulary, d)
    add_norm("output_norm.weight")
    for layer in range(sizes.n_layer):
        add_norm(f"blk.{layer}.attn_norm.weight")
        add_norm(f"blk.{layer}.ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", d, d)
        for name in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{name}.weight", f, d)
        add(f"blk.{layer}.ffn_down.weight", d, f)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
