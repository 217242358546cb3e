"""Refine a slim network by distillation."""
