"""A network with everything needed to use it: architecture, weights, and how it sees a face."""

from nasface.model.card import View
from nasface.model.network import Face, Model

__all__ = ["Face", "Model", "View"]
