"""What a run will need, said before it begins: memory by kind, whether it fits, how long it takes.

ghosts     tensors with shapes and without memory
stand_in   why a plan does not have to wait for the compiler's import
ledger     bytes that are held at each moment of a computation, by kind
trace      one optimizer step of the real model, loss and optimizer, on ghosts
sharding   what of it lies on each device
devices    memory and arithmetic of the devices that people have
possible   what no machine and no optimizer can do, refused before any work
choices    trainer files for so many devices, in the order to try them
plan       fits or not, the largest micro-batch, hours, and which trainer file to take
"""
