"""Tables as papers print them, laid out by hand-made figures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nasface import terminal
from nasface.errors import DataError
from nasface.metrics import mean_std, summarise
from nasface.report.published import published
from nasface.report.tables import csv, latex, layout, markdown
from nasface.scores import METRICS, Normaliser
from tests.refusal import refused

ERRORS = np.array([0.02, 0.04, 0.09, 0.20])


def network(errors: dict[str, Any], expected: int = 4) -> dict[str, Any]:
    """What `Accuracy.as_dict()` gives of a network with these errors of the subsets' faces."""
    subsets = {name: summarise(np.asarray(values), expected).as_dict() for name, values in errors.items()}
    return {"network": "net", "subsets": {"inter_ocular": subsets, "box": subsets}}


def comparison(*networks: dict[str, Any], data: str = "300w", masked: str | None = None) -> dict[str, Any]:
    several = len(networks) > 1
    runs = [
        {"run": f"runs/{i}", "label": f"seed{i}" if several else "", "seed": i, "networks": {"slim_net": figures}}
        for i, figures in enumerate(networks)
    ]
    means = []
    if several:
        means = [{"runs": [run["label"] for run in runs], "networks": {"slim_net": mean_std(list(networks))}}]
    return {"data": data, "masked": masked, "runs": runs, "means": means}


THREE = {"common": ERRORS[:2], "challenge": [], "full": ERRORS[:2]}


def test_a_subset_that_is_not_all_there_says_so():
    table = layout(comparison(network({"common": ERRORS, "challenge": [], "full": ERRORS[:3]})), title="t")
    assert table.header() == ["method", "common (4)", "challenge (0 of 4)", "full (3 of 4)"]
    assert table.cells() == [["slim_net", "8.75", "–", "5.00"]]
    assert table.note == "NME in %, normalised by inter-ocular distance"


def test_columns_are_metrics_by_subset_in_their_units():
    metrics = list(METRICS)
    table = layout(comparison(network({"full": ERRORS})), title="t", metrics=metrics, normaliser=Normaliser.BOX)
    cells = dict(zip(table.header()[1:], table.cells()[0][1:], strict=True))
    assert cells == {
        "NME full (4)": "8.75",
        "FR@8 full (4)": "50.00",
        "FR@10 full (4)": "25.00",
        "AUC@8 full (4)": f"{(0.75 + 0.5) / 4:.4f}",
        "AUC@10 full (4)": f"{(0.8 + 0.6 + 0.1) / 4:.4f}",
        "P50 full (4)": "6.50",
        "P90 full (4)": f"{100 * np.percentile(ERRORS, 90):.2f}",
        "P95 full (4)": f"{100 * np.percentile(ERRORS, 95):.2f}",
    }
    assert all(word in table.note for word in ("box size", "FR@x", "AUC@x", "Px"))


def test_runs_stand_above_their_mean_and_deviation():
    table = layout(comparison(network({"full": [0.03]}, 1), network({"full": [0.04]}, 1)), title="t")
    assert table.cells() == [
        ["seed0 slim_net", "3.00"],
        ["seed1 slim_net", "4.00"],
        ["slim_net, mean of 2 runs", "3.50 ± 0.71"],  # sqrt((0.5 ** 2 + 0.5 ** 2) / 1)
    ]
    assert "ddof 1" in table.note


def test_a_mean_of_some_runs_names_them():
    plain = comparison(*(network({"full": [x]}, 1) for x in (0.03, 0.04, 0.05)))
    plain["means"][0]["runs"] = ["seed0", "seed2"]
    assert [row[0] for row in layout(plain, title="t").cells()][-1] == "slim_net, mean of seed0, seed2"


@pytest.mark.parametrize(
    ("data", "masked", "subsets", "method", "row"),
    [
        ("300w", None, ("common", "challenge", "full"), "HRNet", ["2.87", "5.15", "3.32"]),
        ("300w", None, ("full", "common", "challenge"), "SD-HRNet_1", ["3.40 ± 0.01", "2.93 ± 0.01", "5.32 ± 0.05"]),
        ("300w", "half", ("common", "challenge", "full"), "HRSuperNet", ["14.03", "20.52", "15.30"]),
        ("masked300w", None, ("common", "challenge", "full"), "S-HRNet", ["19.18", "29.37", "21.17"]),
        ("cofw", None, ("full",), "HRNet", ["3.45", "0.19"]),
        ("cofw", None, ("full",), "LGSA", ["3.13", "0.002"]),
        ("wflw", None, ("full", "pose", "blur"), "LUVLi", ["4.37", "7.56", "4.94"]),
    ],
)
def test_published_rows_stand_above(data: str, masked: str | None, subsets: tuple[str, ...], method: str, row: list):
    ours = network(dict.fromkeys(subsets, ERRORS))
    table = layout(comparison(ours, data=data, masked=masked), title="t", published=published())
    rows = {cells[0]: cells[1:] for cells in table.cells()}
    assert rows[method] == row
    assert table.lines[-1].method == "slim_net"
    assert [line.published for line in table.lines] == [*[True] * (len(rows) - 1), False]
    assert f"first {len(rows) - 1} rows are published" in table.note
    assert ("not directly comparable" in table.note) == (masked is not None)


def test_published_figures_stand_only_where_they_belong():
    ours = network({"full": ERRORS, "pose": ERRORS})
    table = layout(comparison(ours, data="wflw"), title="t", metrics=["nme", "auc10"], published=published())
    assert table.header() == ["method", "NME test (4)", "NME pose (4)", "AUC@10 test (4)", "AUC@10 pose (4)"]
    assert table.cells()[0] == ["ESR", "11.13", "25.88", "–", "–"]


def test_what_cannot_be_compared_is_refused():
    ours = comparison(network({"full": ERRORS}))
    with refused(DataError, "inter-ocular distance", "--normaliser"):
        layout(ours, title="t", normaliser=Normaliser.BOX, published=published())
    with refused(DataError, "'synthetic'", "--published"):
        layout({**ours, "data": "synthetic"}, title="t", published=published())
    with refused(DataError, "'300w'"):
        layout(comparison({"network": "net", "subsets": {}}), title="t")


def test_markdown_is_a_table_of_its_own():
    text = markdown(layout(comparison(network(THREE, 2)), title="runs/a on 300w"))
    title, _, head, rule, row, _, note = text.splitlines()
    assert title == "**runs/a on 300w**"
    assert [cell.strip() for cell in head.split("|")[1:-1]] == [
        "method",
        "common (2)",
        "challenge (0 of 2)",
        "full (2)",
    ]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["slim_net", "3.00", "–", "3.00"]
    assert set(rule) <= set("|:-")
    assert note.startswith("NME in %")


def test_latex_has_booktabs_and_a_rule_below_what_is_published():
    text = latex(layout(comparison(network(THREE, 2)), title="t", published=published()))
    lines = text.splitlines()
    assert lines[0] == "% t"
    start = lines.index(r"\begin{tabular}{lrrr}")
    assert lines[start + 1 : start + 4] == [r"\toprule", lines[start + 2], r"\midrule"]
    assert lines[-4:] == [r"\midrule", r"slim\_net & 3.00 & – & 3.00 \\", r"\bottomrule", r"\end{tabular}"]
    assert r"mnv2\_KD & 3.56 & 6.13 & 4.06 \\" in lines
    assert text.count(r"\midrule") == 2


def test_csv_has_shares_counts_and_deviations():
    plain = comparison(network({"common": [0.031], "full": []}, 1), network({"common": [0.047], "full": []}, 1))
    frame = pd.read_csv(io.StringIO(csv(layout(plain, title="t", published=published()))))
    ours = frame[~frame.published].set_index("method")
    assert ours.nme_common.tolist() == pytest.approx([0.031, 0.047, 0.039])
    assert ours.nme_common_std.iloc[-1] == pytest.approx(0.016 / np.sqrt(2))
    assert ours.images_common.tolist() == [1, 1, 1]
    assert (ours.images_full.tolist(), ours.expected_full.tolist()) == ([0, 0, 0], [1, 1, 1])
    assert frame[frame.published].set_index("method").nme_full["HRNet"] == 0.0332
    assert "nme_common_std" not in csv(layout(comparison(network(THREE)), title="t"))


def test_a_network_in_the_terminal_has_one_line_a_subset(capsys: pytest.CaptureFixture[str]):
    costs = dict.fromkeys(
        ("params", "macs", "params_no_head", "macs_no_head", "macs_prunable", "edges", "blocks"), 1234
    )
    ours = {**network({"common": [*ERRORS, np.nan], "challenge": []}, 5), **costs, "held_out_nme": 0.031}
    terminal.show(terminal.network_table({"net": ours}, "title"))
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    (common,) = [line for line in lines if "common" in line]
    assert "common (5)" in common
    assert "8.75 | 40.00 | 0.3000 (1 without landmarks)" in common
    assert any("challenge (0 of 5)" in line and "–" in line for line in lines)
    assert any("MACs" in line and "1,234" in line for line in lines)
    terminal.show(terminal.network_table({"program": network({"full": ERRORS})}, "no costs"))
    out = capsys.readouterr().out
    assert "8.75 | 25.00 | 0.3750" in out
    assert "MACs" not in out
