"""Evaluate networks, or landmarks that any program has written."""
