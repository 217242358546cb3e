"""`nasface plugins`."""

from __future__ import annotations

import json

import click

from nasface.cli.group import main
from nasface.cli.options import json_option


@main.command(short_help="List plug-ins and recipes.")
@json_option
def plugins(as_json: bool) -> None:
    """List search spaces, datasets, searchers, criteria, pruners, teachers, export formats and recipes.

    \b
    Example:
      nasface plugins
    """
    from nasface import plugins as found
    from nasface import recipe as recipes
    from nasface import terminal

    rows = found.listing() + recipes.listing()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        columns = ("kind", "name", "package", "about")
        terminal.show(
            terminal.table("plug-ins and recipes", columns, [[r[c] for c in columns] for r in rows], text_columns=4)
        )
