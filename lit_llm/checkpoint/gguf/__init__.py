"""Checkpoints as GGUF, the files of llama.cpp and ollama: written, and proven equal.

write          export: a checkpoint becomes a folder with such a file
architecture   which of llama.cpp's networks computes what ours does, and what none of them does
tensors        names, shapes and types there; one tensor in memory at a time
vocabulary     the tokenizer: which of llama.cpp's two, and the control tokens
sentencepiece  a tokenizer.model for llama.cpp's "llama"
byte_level     a tokenizer.json for llama.cpp's "gpt2"
chat           the chat template for ollama; that for llama.cpp is Jinja, as elsewhere
modelfile      what ollama reads beside the file
file           reading and writing with the package gguf
prove          the file holds what was meant
llama_cpp      llama.cpp computes what we do
answers        llama.cpp itself, in a process of its own
probes         the texts and tokens that both are asked
"""
