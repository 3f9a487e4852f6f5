"""Checkpoints in Hugging Face's form: written, read, and proven equal.

names          what a weight is called here and there
architectures  config.json and GPTConfig
source         the files of a folder that somebody else has written, read safely
read           import: such a folder becomes a checkpoint
write          export: a checkpoint becomes such a folder
tokenizer_files  tokenizer.json and its companions
chat           which chat template an imported model gets
foreign_chat   the turns of a published model's chat template
card           README.md: what the model is and where it comes from
prove          both compute the same, in two processes
witness        asks transformers; their_side answers, in a process of its own
parts          16 bits that compute in float32, a layer at a time
strings        texts on which tokenizers may disagree
"""
