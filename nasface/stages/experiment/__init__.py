"""Several runs over seeds to one table."""
