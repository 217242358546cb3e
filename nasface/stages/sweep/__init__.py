"""Sweeps: many sub-networks of one supernet, each measured and, if asked for, fine-tuned."""
