"""How a network is trained: the seam between it and Lightning's Trainer."""
