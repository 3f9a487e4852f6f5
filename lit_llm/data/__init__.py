"""From files on a disk to batches: corpus, clean, prepare, shards, order, packing, module.

`corpus/` says where text comes from, `prepare` turns it into memory-mapped token shards once,
`packing` and `order` decide which tokens make which row, and `module` hands rows to Lightning.
docs/data.md tells the same story for users.
"""
