"""Export a network to a file that runs without PyTorch, and check that it computes the same."""
