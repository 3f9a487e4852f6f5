"""Speed and memory, measured beside a peer or a bound; docs/gpu.md says how to run what is here."""
