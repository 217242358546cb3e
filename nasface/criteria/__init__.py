"""Criteria, which rate the importance of every prunable edge of a searched supernet; one file per criterion."""

from nasface.criteria.base import Criterion

__all__ = ["Criterion"]
