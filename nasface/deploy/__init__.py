"""From a trained network to the module that is exported: plain, rewritten, with its ends inside."""
