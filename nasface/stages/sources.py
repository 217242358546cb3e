"""Where commands find what they work on."""

from nasface.model.source import Source, read_source, required

__all__ = ["Source", "read_source", "required"]
