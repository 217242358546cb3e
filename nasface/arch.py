"""The files arch.json and factors.json: a chosen sub-network, and how important each edge of a supernet is.

Of a sub-network only the kept edges are stored; everything else follows from them. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nasface import untrusted
from nasface.errors import GraphError, shortened, shown
from nasface.graph import Edge, Graph, parse_edges

SCHEMA_VERSION = 1
MAX_LANDMARKS = 10_000  # heatmaps of a network
MAX_INPUT = 4096  # side of the input in pixels
_MOST = {"num_landmarks": MAX_LANDMARKS, "input_size": MAX_INPUT}


@dataclass(frozen=True)
class Architecture:
    """A sub-network: which edges of which search space it keeps.

    Attributes:
        space, options: name and options from which the search space can be rebuilt.
        num_landmarks: number of heatmaps of the head.
        input_size: side of the square input in pixels.
        graph_digest: digest of the full graph, by which a space that has changed since is recognised and refused.
        kept: edges of the closed sub-graph, in the order of the graph.
        provenance: how it was made: run, dataset, pruner, seed and versions, as plain JSON values.
    """

    space: str
    options: Mapping[str, Any]
    num_landmarks: int
    input_size: int
    graph_digest: str
    kept: tuple[Edge, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def subgraph(self, graph: Graph) -> Graph:
        """Return the kept part of the space's graph.

        Raises:
            GraphError: if `graph` is not the graph it was chosen from, or if the kept edges are not closed.
        """
        check_digest(f"the architecture in space '{self.space}'", self.graph_digest, graph)
        kept = graph.keep(self.kept)
        if dangling := set(self.kept) - set(kept.edges):
            raise GraphError(
                f"the architecture keeps edges that lie on no path from an input to an output ({len(dangling)}, for "
                f"example {shortened(' -> '.join(min(dangling)))}); remove them, or prune again"
            )
        return kept

    @property
    def edges_digest(self) -> str:
        """A hash of the kept edges, which tells networks of one space apart."""
        return hashlib.sha256(repr(self.kept).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the content of arch.json."""
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
        """Read the content of an arch.json file.

        Args:
            text: content of the file.
            where: name of the file, for error messages.

        Raises:
            GraphError: if it is not an architecture, or has a schema that this version cannot read.
        """
        content = parse_object(text, where, "an architecture written by `nasface prune` or `nasface search`")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise GraphError(
                f"{where} has schema_version {shown(version)}, but this version of nasface reads {SCHEMA_VERSION}; "
                "write the file again with `nasface prune`"
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
                    f"{where}: '{name}' is missing or has the wrong type; write the file again with `nasface prune`"
                )
            most = _MOST.get(name)
            if most is not None and isinstance(value, int) and value > most:
                raise GraphError(f"{where}: '{name}' is {shown(value)}; expected at most {most}")
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
    """How important each prunable edge of a searched supernet is.

    Attributes:
        space, options, num_landmarks, graph_digest: see `Architecture`.
        importance: importance by edge, which is never negative; pruners compare it with thresholds.
        alpha: the LSFF factor alpha by edge.
        provenance: how it was made.
    """

    space: str
    options: Mapping[str, Any]
    num_landmarks: int
    graph_digest: str
    importance: Mapping[Edge, float]
    alpha: Mapping[Edge, float]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the content of factors.json."""
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
        """Read the content of a factors.json file.

        Args:
            text: content of the file.
            where: name of the file, for error messages.

        Raises:
            GraphError: if it does not hold factors, or has a schema that this version cannot read.
        """
        content = parse_object(text, where, "factors written by `nasface search`")
        try:
            if content["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version {shown(content['schema_version'])} is not {SCHEMA_VERSION}")
            edges = _edges([item["edge"] for item in content["edges"]], where)
            if any(not 0 <= float(item["importance"]) < math.inf for item in content["edges"]):
                raise ValueError("an importance is negative or not finite")
            if not all(math.isfinite(float(item["alpha"])) for item in content["edges"]):
                raise ValueError("an alpha is not finite")
            if not 1 <= int(content["num_landmarks"]) <= MAX_LANDMARKS:
                raise ValueError(f"num_landmarks is not a number from 1 to {MAX_LANDMARKS}")
            return cls(
                space=str(content["space"]),
                options=dict(content["options"]),
                num_landmarks=int(content["num_landmarks"]),
                graph_digest=str(content["graph_digest"]),
                importance={e: float(i["importance"]) for e, i in zip(edges, content["edges"], strict=True)},
                alpha={e: float(i["alpha"]) for e, i in zip(edges, content["edges"], strict=True)},
                provenance=dict(content["provenance"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as err:
            raise GraphError(
                f"{where} is not a factors file that this version of nasface reads ({shortened(str(err))}); run "
                "`nasface search` again"
            ) from err


def _dump(content: Mapping[str, Any]) -> str:
    return json.dumps({"schema_version": SCHEMA_VERSION, **content}, indent=1) + "\n"


def check_digest(what: str, digest: str, graph: Graph) -> None:
    """Raise a GraphError if `what`, made for the graph with this digest, does not fit `graph`."""
    if digest != graph.digest:
        raise GraphError(
            f"{what} belongs to the graph {shortened(digest)}, but the space now has the graph {graph.digest}; "
            "use the version and options of that graph, or search again"
        )


def edge_list(text: str, where: str) -> list[Edge]:
    """Read the edges of an edge-list file: a JSON list as in `parse_edges`, or an object with such a list as 'edges'.

    Args:
        text: content of the file.
        where: name of the file, for error messages.

    Raises:
        GraphError: if it holds no edges.
    """
    content = _parse(text, where, "a list of edges")
    items = content.get("edges") if isinstance(content, dict) else content
    if not isinstance(items, list) or not items:
        raise GraphError(
            f"{where} holds no edges; expected a list of edges, or an object with such a list under 'edges'"
        )
    return _edges(items, where)


def _edges(items: list[object], where: str) -> list[Edge]:
    """Call `parse_edges`, and name the file in its error message."""
    try:
        return parse_edges(items)
    except GraphError as err:
        raise GraphError(f"{where}: {err}") from err


def parse_object(text: str, where: str, what: str) -> dict[str, Any]:
    """Parse a JSON object; a GraphError names the file `where` and says that `what` was expected."""
    content = _parse(text, where, what)
    if not isinstance(content, dict):
        raise GraphError(f"{where} holds a {type(content).__name__}; expected {what}")
    return content


def _parse(text: str, where: str, what: str) -> Any:
    try:
        return untrusted.parse_json(text, where)
    except untrusted.NotReadableError as err:
        raise GraphError(f"{where} is not valid JSON ({err}); expected {what}") from err
