"""`nasface models`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from nasface.cli.group import main
from nasface.cli.options import json_option

if TYPE_CHECKING:
    from nasface.model.shipped import Shipped


@main.command(short_help="List the networks that come with nasface.")
@click.argument("name", required=False)
@json_option
def models(name: str | None, as_json: bool) -> None:
    """List the networks that come with nasface, or show the card of one: its purpose, cost and accuracy.

    \b
    Examples:
      nasface models
      nasface models face68
    """
    from nasface.model import shipped

    one = None if name is None else shipped.network(name)
    found = list(shipped.networks().values())
    if as_json:
        click.echo(json.dumps(one.as_dict() if one else [network.as_dict() for network in found], indent=1))
    elif one:
        _show_card(one)
    else:
        _show_list(found)


def _show_list(found: list[Shipped]) -> None:
    """Print one row for each network."""
    from nasface import terminal
    from nasface.scores import percent

    rows = []
    for network in found:
        about = network.as_dict()
        error = percent(about["nme"]["300w"]["common"]["nme"])
        size = f"{about['input_size']} px"
        rows.append(
            [
                network.name,
                str(about["landmarks"]),
                size,
                f"{about['params']:,}",
                f"{about['macs']:,}",
                error,
                about["licence"],
            ]
        )
    columns = ["name", "landmarks", "input", "params", "MACs", "NME (%)", "licence"]
    caption = "NME: inter-ocular, on the common subset of 300W; `nasface models NAME` shows a card in full"
    terminal.show(terminal.table("Networks that come with nasface", columns, rows, caption))


def _show_card(network: Shipped) -> None:
    """Print everything that is known about a network."""
    from nasface import terminal
    from nasface.scores import percent

    about = network.as_dict()
    scores, seen = about["score"], about["detected"]
    rows = [
        ["landmarks", str(about["landmarks"])],
        ["input", f"{about['input_size']} x {about['input_size']} pixels, RGB"],
        ["parameters", f"{about['params']:,}"],
        ["MACs", f"{about['macs']:,}" + " (in two passes: the face and its mirror image)" * (about["passes"] == 2)],
        ["file", f"{about['bytes'] / 1e6:.2f} MB"],
        ["latency", f"{about['latency_ms']:.1f} ms ({about['latency_of']})"],
        ["median score", f"{scores['300w']['p50']:.2f} on 300W, {scores['synthetic']['p50']:.2f} on synthetic faces"],
        ["with a detector", f"NME {percent(seen['nme'])} % on 300W, {seen['missed']} of {seen['faces']} faces missed"],
        ["licence", about["licence"]],
        ["trained on", about["trained_on"]],
        ["chosen by", about["chosen_by"]],
        ["command", about["command"]],
    ]
    terminal.show(terminal.table(f"{network.name}: {about['about']}", ["", "value"], rows, text_columns=2))
    errors = [
        [dataset, subset, f"{result['faces']:,}", percent(result["nme"]), percent(result["fr10"])]
        for dataset, subsets in about["nme"].items()
        for subset, result in subsets.items()
    ]
    columns = ["dataset", "subset", "faces", "NME (%)", "FR@10 (%)"]
    caption = "inter-ocular NME in boxes of the true landmarks; FR@10: share of the faces with an NME above 10 %"
    terminal.show(
        terminal.table("Errors on faces that it was not trained on", columns, errors, caption, text_columns=2)
    )
    for line in about["limits"]:
        click.echo(f"* {line}")
