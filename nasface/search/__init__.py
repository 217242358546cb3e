"""Searchers: they train a supernet so that a criterion can tell which edges matter."""

from nasface.search.base import Searcher

__all__ = ["Searcher"]
