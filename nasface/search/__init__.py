"""Searchers: they train a supernet so that every prunable edge gets an importance."""

from nasface.search.base import Searcher

__all__ = ["Searcher"]
