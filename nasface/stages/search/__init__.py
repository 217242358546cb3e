"""Search, and the networks of a search that trains several."""
