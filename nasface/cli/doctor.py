"""`nasface doctor`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from nasface.cli.group import main
from nasface.cli.options import FOLDER, json_option, quiet_option


@main.command(short_help="Say what is wrong with this installation, a folder of results, or a study.")
@click.argument("folder", type=FOLDER, required=False)
@click.option("--study", metavar="URL", help="Storage of studies: a journal file, or the URL of a database or proxy.")
@click.option("--data-root", type=FOLDER, help="Folder to be searched by every installed dataset.")
@quiet_option
@json_option
def doctor(folder: Path | None, study: str | None, data_root: Path | None, quiet: bool, as_json: bool) -> None:
    """Examine this installation, every file of a FOLDER of results, or a study.

    Nothing is changed. The exit code is 2 if something is wrong.

    \b
    Examples:
      nasface doctor --data-root data/300w
      nasface doctor runs/mini
      nasface doctor --study postgresql://nasface@db/studies
    """
    from nasface import terminal
    from nasface.errors import printable
    from nasface.progress import Progress
    from nasface.stages.doctor import folder as of_folder
    from nasface.stages.doctor import here
    from nasface.stages.doctor import study as of_study
    from nasface.stages.doctor.finding import Finding

    def examinations(hooks: Progress) -> Iterator[Finding]:
        if folder is not None:
            yield from of_folder.examine(folder, hooks)
        if study is not None:
            yield from of_study.examine(study)
        if data_root is not None or (folder is None and study is None):
            yield from here.examine(data_root, hooks)

    with terminal.progress_bars(quiet or as_json) as hooks:
        found = list(examinations(hooks))
    wrong = sum(finding.state == "wrong" for finding in found)
    if as_json:
        click.echo(json.dumps({"ok": not wrong, "findings": [asdict(finding) for finding in found]}, indent=1))
    else:
        for section in dict.fromkeys(finding.section for finding in found):
            rows = [[printable(f.what), f.state, printable(f.detail)] for f in found if f.section == section]
            terminal.show(terminal.table(section, ["", "state", "found"], rows, text_columns=3))
        click.echo(f"looked at {len(found)} things: " + (f"{wrong} wrong" if wrong else "nothing wrong"))
    sys.exit(2 if wrong else 0)
