"""nasface finds, slims, distils and ships efficient landmark networks."""

__version__ = "0.1.0"
