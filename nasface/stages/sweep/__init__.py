"""Many sub-networks of one supernet, each measured and, if asked, trained."""
