"""Checkpoints: folders that are whole or absent, and that need nothing beside them to be used.

folder         one folder: written, replaced and removed atomically
manifest       what proves it complete and undamaged
find           which checkpoint is meant: a path, a run, or "last"
plain          descriptions of networks as plain values, and back
bundle         weights + tokenizer + description: all that prediction needs, no Lightning
lightning_io   the Trainer's plug-in: bundle + optimizer, loops and callbacks
"""
