"""Checkpoints: folders that are whole or absent, and that need nothing beside them to be used.

folder         one folder: written, replaced and removed atomically
hashed         files that are hashed while they are written
safetensors_file  tensors as such a file, one in memory at a time
manifest       what proves a folder complete and undamaged
verification   the proof, made while it is read and shared out over processes
find           which checkpoint is meant: a path, a run, or "last"; and why that one
space          whether two of them fit on the disk, asked before the first step
plain          descriptions of networks as plain values, and back
bundle         weights + tokenizer + description: all that prediction needs, no Lightning
base           adapters know whose weights they adapt
merge          adapters become part of those weights
peft           adapters as Hugging Face's peft reads them
training_state training.ckpt: the rest, which a run needs to go on
lightning_io   the Trainer's plug-in: both, from a process that has whole tensors

boxes          which part of a tensor lies in which process
sharded        tensors in files of their parts: who writes what, and the way back
reader         single tensors or parts of them, from a checkpoint of either form
ranks          processes that succeed or fail together
sharded_io     a run's checkpoint, saved and loaded by all processes
consolidate    one file of many
"""
