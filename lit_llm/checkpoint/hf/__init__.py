"""Checkpoints in Hugging Face's form: written, read, and proven equal.

names          what a weight is called here and there
architectures  config.json and GPTConfig
source         the files of a folder that somebody else has written, read safely
read           import: such a folder becomes a checkpoint
write          export: a checkpoint becomes such a folder
tokenizer      tokenizer.json and its companions
card           README.md: what the model is and where it comes from
prove          both compute the same, in two processes
"""
