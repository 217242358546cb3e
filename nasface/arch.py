"""A chosen sub-network as a file: arch.json. Kept edges are stored, all else is derived. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nasface.errors import GraphError
from nasface.graph import Edge, Graph, parse_edges

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Architecture:
    """Which edges of which space make the network.

    Attributes:
        space, options: name and options from which the search space is built again.
        num_landmarks: heatmaps of the head.
        input_size: pixels, square.
        graph_digest: of the full graph; a space that has changed since is refused.
        kept: edges of the closed sub-graph, in graph order.
        provenance: where it came from: run, data set, pruner, seed, versions. Plain JSON values.
    """

    space: str
    options: Mapping[str, Any]
    num_landmarks: int
    input_size: int
    graph_digest: str
    kept: tuple[Edge, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def subgraph(self, graph: Graph) -> Graph:
        """The kept part of the space's graph.

        Raises:
            GraphError: when `graph` is not the one it was chosen from, or the kept edges are not closed.
        """
        check_digest(f"an architecture of space '{self.space}'", self.graph_digest, graph)
        kept = graph.keep(self.kept)
        if dangling := set(self.kept) - set(kept.edges):
            raise GraphError(
                f"the architecture keeps {len(dangling)} edges that lie on no path from input to output, for example "
                f"{' -> '.join(min(dangling))}; remove them, or prune again"
            )
        return kept

    def to_json(self) -> str:
        """The content of arch.json."""
        return _dump(
            {
                "space": self.space,
                "options": dict(self.options),
                "num_landmarks": self.num_landmarks,
                "input_size": self.input_size,
                "graph_digest": self.graph_digest,
                "edges": [list(edge) for edge in self.kept],
                "provenance": dict(self.provenance),
            }
        )

    @classmethod
    def from_json(cls, text: str, where: str = "arch.json") -> Architecture:
        """Read arch.json.

        Args:
            text: the file's content.
            where: its name, for messages.

        Raises:
            GraphError: when it is not an architecture, or has a schema that this version cannot read.
        """
        content = parse_object(text, where, "an architecture written by `nasface prune` or `nasface search`")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise GraphError(
                f"{where} has schema_version {version!r}; this nasface reads {SCHEMA_VERSION}: "
                "write it again with this version's `nasface prune`"
            )
        wanted: dict[str, type] = {
            "space": str,
            "options": dict,
            "num_landmarks": int,
            "input_size": int,
            "graph_digest": str,
            "edges": list,
            "provenance": dict,
        }
        for name, kind in wanted.items():
            value = content.get(name)
            if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 1):
                raise GraphError(
                    f"{where}: '{name}' is missing or of the wrong type; write it again with `nasface prune`"
                )
        return cls(
            space=content["space"],
            options=content["options"],
            num_landmarks=content["num_landmarks"],
            input_size=content["input_size"],
            graph_digest=content["graph_digest"],
            kept=tuple(_edges(content["edges"], where)),
            provenance=content["provenance"],
        )


@dataclass(frozen=True)
class Factors:
    """How much each prunable edge of a searched supernet matters.

    Attributes:
        space, options, num_landmarks, graph_digest: see `Architecture`.
        importance: by edge, not negative; what pruners compare with thresholds.
        alpha: by edge, the LSFF factor itself.
        provenance: where it came from.
    """

    space: str
    options: Mapping[str, Any]
    num_landmarks: int
    graph_digest: str
    importance: Mapping[Edge, float]
    alpha: Mapping[Edge, float]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The content of factors.json."""
        return _dump(
            {
                "space": self.space,
                "options": dict(self.options),
                "num_landmarks": self.num_landmarks,
                "graph_digest": self.graph_digest,
                "edges": [
                    {"edge": list(edge), "importance": value, "alpha": self.alpha[edge]}
                    for edge, value in self.importance.items()
                ],
                "provenance": dict(self.provenance),
            }
        )

    @classmethod
    def from_json(cls, text: str, where: str = "factors.json") -> Factors:
        """Read factors.json; a GraphError says what is wrong with it."""
        content = parse_object(text, where, "factors written by `nasface search`")
        try:
            if content["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version {content['schema_version']!r} is not {SCHEMA_VERSION}")
            edges = _edges([item["edge"] for item in content["edges"]], where)
            if any(not 0 <= float(item["importance"]) < float("inf") for item in content["edges"]):
                raise ValueError("an importance is negative or not finite")
            return cls(
                space=str(content["space"]),
                options=dict(content["options"]),
                num_landmarks=int(content["num_landmarks"]),
                graph_digest=str(content["graph_digest"]),
                importance={e: float(i["importance"]) for e, i in zip(edges, content["edges"], strict=True)},
                alpha={e: float(i["alpha"]) for e, i in zip(edges, content["edges"], strict=True)},
                provenance=dict(content["provenance"]),
            )
        except (KeyError, TypeError, ValueError) as err:
            raise GraphError(
                f"{where} is not a factors file of this version ({err}); run `nasface search` again"
            ) from err


def _dump(content: Mapping[str, Any]) -> str:
    return json.dumps({"schema_version": SCHEMA_VERSION, **content}, indent=1) + "\n"


def check_digest(what: str, digest: str, graph: Graph) -> None:
    """Refuse what was made for another graph with a GraphError."""
    if digest != graph.digest:
        raise GraphError(
            f"{what} was made for the graph {digest}, but the space now has the graph {graph.digest}; "
            "use the version and options it was made with, or search again"
        )


def edge_list(text: str, where: str) -> list[Edge]:
    """Edges of an edge-list file: a JSON object with 'edges', or a bare list, in the forms of `parse_edges`."""
    content = _parse(text, where, "a list of edges")
    items = content.get("edges") if isinstance(content, dict) else content
    if not isinstance(items, list) or not items:
        raise GraphError(f"{where} holds no edges; expected a list, or an object with the key 'edges'")
    return _edges(items, where)


def _edges(items: list[object], where: str) -> list[Edge]:
    """`parse_edges`, with the file's name in the message."""
    try:
        return parse_edges(items)
    except GraphError as err:
        raise GraphError(f"{where}: {err}") from err


def parse_object(text: str, where: str, what: str) -> dict[str, Any]:
    """A JSON object, or a GraphError that says `what` was expected."""
    content = _parse(text, where, what)
    if not isinstance(content, dict):
        raise GraphError(f"{where} holds a {type(content).__name__}; expected {what}")
    return content


def _parse(text: str, where: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as err:
        raise GraphError(f"{where} is not valid JSON ({err}); expected {what}") from err
