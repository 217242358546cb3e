"""Criteria: they say how much each prunable edge of a trained supernet matters, one file for each."""

from nasface.criteria.base import Criterion

__all__ = ["Criterion"]
