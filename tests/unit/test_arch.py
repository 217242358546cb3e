"""arch.json and factors.json: the round trip, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny import diamond

from nasface.arch import Architecture, Factors, check_digest, edge_list
from nasface.errors import GraphError
from tests.refusal import refused

GRAPH = diamond()
KEPT = (("a", "b"), ("b", "d"), ("b", "e"))


def architecture(**changes) -> Architecture:
    plain = {
        "space": "toy",
        "options": {"width": 4, "alpha": None, "modules": [1, 2]},
        "num_landmarks": 29,
        "input_size": 64,
        "graph_digest": GRAPH.digest,
        "kept": KEPT,
        "provenance": {"run": "runs/a", "seed": 3, "least_kept_importance": None},
    }
    return Architecture(**(plain | changes))


def factors() -> Factors:
    values = {edge: 0.1 * i for i, edge in enumerate(GRAPH.prunable)}
    signed = {edge: -value for edge, value in values.items()}
    return Factors("toy", {"width": 4}, 29, GRAPH.digest, values, signed, {"seed": 1})


def edited(text: str, **changes) -> str:
    """The file with some keys replaced; None removes a key."""
    content = json.loads(text) | changes
    return json.dumps({key: value for key, value in content.items() if value is not None})


def test_an_architecture_survives_the_round_trip():
    arch = architecture()
    assert Architecture.from_json(arch.to_json()) == arch
    assert json.loads(arch.to_json())["edges"] == [list(edge) for edge in KEPT]
    assert arch.to_json().endswith("}\n")


def test_factors_survive_the_round_trip():
    found = factors()
    again = Factors.from_json(found.to_json())
    assert again == found
    assert list(again.importance) == list(GRAPH.prunable)
    assert again.alpha[GRAPH.prunable[2]] == -0.2


def test_pairs_of_numbers_name_nodes_too():
    text = edited(architecture().to_json(), edges=[[[1, 0], [2, 3]]])
    assert Architecture.from_json(text).kept == (("1.0", "2.3"),)


@pytest.mark.parametrize("version", [0, 2, "1", [1]])
def test_another_schema_version_is_refused(version):
    with refused(GraphError, "mine.json", f"schema_version {version!r}", "reads 1"):
        Architecture.from_json(edited(architecture().to_json(), schema_version=version), "mine.json")
    with refused(GraphError, "mine.json", f"schema_version {version!r}"):
        Factors.from_json(edited(factors().to_json(), schema_version=version), "mine.json")


def test_a_missing_schema_version_is_refused():
    with refused(GraphError, "arch.json", "schema_version None"):
        Architecture.from_json(edited(architecture().to_json(), schema_version=None))
    with refused(GraphError, "factors.json", "schema_version"):
        Factors.from_json(edited(factors().to_json(), schema_version=None))


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("space", 3),
        ("options", [1]),
        ("num_landmarks", "68"),
        ("input_size", 64.5),
        ("graph_digest", 12),
        ("edges", {"a": "b"}),
        ("provenance", "me"),
    ],
)
def test_a_wrong_type_or_missing_key_is_named(key, wrong):
    for value in (wrong, None):
        with refused(GraphError, "arch.json", f"'{key}'"):
            Architecture.from_json(edited(architecture().to_json(), **{key: value}))


@pytest.mark.parametrize(
    "changes",
    [
        {"edges": [{"edge": ["a", "b"], "importance": 1.0}]},
        {"edges": [{"edge": ["a", "b"], "importance": "much", "alpha": 1.0}]},
        {"edges": [["a", "b"]]},
        {"num_landmarks": "many"},
        {"options": 3},
        {"provenance": None},
    ],
)
def test_factors_of_another_form_are_refused(changes):
    with refused(GraphError, "factors.json", "`nasface search`"):
        Factors.from_json(edited(factors().to_json(), **changes))


@pytest.mark.parametrize("read", [Architecture.from_json, Factors.from_json])
def test_what_is_no_json_object_is_refused(read):
    with refused(GraphError, "here", "JSON", "line 1"):
        read("{", "here")
    with refused(GraphError, "here", "list", "`nasface"):
        read("[]", "here")


def test_the_subgraph_is_the_kept_one():
    assert architecture().subgraph(GRAPH) == GRAPH.keep(KEPT)


def test_a_changed_graph_is_refused():
    wider = replace(GRAPH, nodes=(replace(GRAPH.nodes[0], channels=99), *GRAPH.nodes[1:]))
    with refused(GraphError, "'toy'", GRAPH.digest, wider.digest):
        architecture().subgraph(wider)
    with refused(GraphError, "these factors", GRAPH.digest, wider.digest):
        check_digest("these factors", GRAPH.digest, wider)
    check_digest("these factors", GRAPH.digest, GRAPH)


def test_dangling_and_unknown_edges_are_refused():
    with refused(GraphError, "path", 1, "a -> c"):
        architecture(kept=(*KEPT, ("a", "c"))).subgraph(GRAPH)
    with refused(GraphError, "a -> d", "search space"):
        architecture(kept=(*KEPT, ("a", "d"))).subgraph(GRAPH)
    with refused(GraphError, "disconnected"):
        architecture(kept=()).subgraph(GRAPH)


def test_edge_lists_in_every_form():
    wanted = [("1.0", "2.0"), ("2.0", "3.1")]
    pairs = [[[1, 0], [2, 0]], [[2, 0], [3, 1]]]
    names = [["1.0", "2.0"], ["2.0", "3.1"]]
    for content in (pairs, names, {"edges": pairs, "source": "elsewhere"}, {"edges": names}):
        assert edge_list(json.dumps(content), "edges.json") == wanted
    assert edge_list(architecture().to_json(), "arch.json") == list(KEPT)


@pytest.mark.parametrize("content", ["[]", "{}", '{"edges": []}', '{"edges": {"a": 1}}', "3", "null"])
def test_a_file_without_edges_is_refused(content):
    with refused(GraphError, "edges.json", "list", "'edges'"):
        edge_list(content, "edges.json")
