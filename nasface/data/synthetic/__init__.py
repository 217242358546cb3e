"""Faces that nasface renders itself: a parametric 3-D head, painted with NumPy and Pillow."""

from nasface.data.synthetic.faces import Synthetic

__all__ = ["Synthetic"]
