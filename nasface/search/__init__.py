"""Searchers, which train a supernet so that a criterion can rate its edges."""

from nasface.search.base import Searcher

__all__ = ["Searcher"]
