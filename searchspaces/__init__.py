"""The built-in search spaces: plug-ins like anyone else's."""
