"""Formats in which networks are exported: one file per format, and the protocol that it follows.

A format imports its libraries, and torch, only where it needs them: networks run without what it took to write them.
"""

from nasface.formats.base import Format, Inputs, Outputs, OwnRuntime, Precision, Quantisation, Run

__all__ = ["Format", "Inputs", "Outputs", "OwnRuntime", "Precision", "Quantisation", "Run"]
