"""Searches and what could be done instead of them, at equal cost and equal compute."""
