"""The built-in search spaces, which are plug-ins like any other."""
