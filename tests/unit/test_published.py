"""Published figures: complete, in this toolkit's units, and consistent with each other."""

from __future__ import annotations

import pytest

from nasface.errors import DataError
from nasface.report.published import costs_and_nme, published
from tests.refusal import refused


def test_figures_are_in_numbers_and_shares():
    tables = published()
    assert tables["cost"]["HRNet"] == {"backbone": "HRNetV2-W18", "params": 9_300_000, "macs": 4_300_000_000}
    assert tables["cost"]["GlomFace"]["params"] is None
    assert tables["errors"]["300w"]["HRNet"] == {"common": 0.0287, "challenge": 0.0515, "full": 0.0332}
    assert tables["errors"]["cofw"]["SD-HRNet_2"] == {"full": 0.0363, "failure_rate": 0.0020}
    assert tables["std"]["masked-300w"] == {
        "SD-HRNet_1": {"common": 0.0025, "challenge": 0.0051, "full": 0.0028},
        "SD-HRNet_2": {"common": 0.0023, "challenge": 0.0025, "full": 0.0020},
    }
    assert all(0 < e["full"] < 0.25 for table in tables["errors"].values() for e in table.values())


def test_the_source_is_named():
    source = published()["source"]
    assert source["doi"] == "10.3390/s23031532"
    assert source["licence"].startswith("CC BY")


@pytest.mark.parametrize("dataset", ["300w", "masked-300w"])
def test_full_is_the_mean_over_the_images_of_both_subsets(dataset):
    """A slip in one of a row's three figures would show."""
    rows = published()["errors"][dataset]
    if dataset == "300w":
        assert rows.pop("LAB")["full"] == 0.0349  # printed so; its subsets give 3.41 %
    for method, row in rows.items():
        mean = (554 * row["common"] + 135 * row["challenge"]) / 689
        assert row["full"] == pytest.approx(mean, abs=2e-4), method


def test_the_ablation_begins_without_anything_and_ends_with_all():
    rows = published()["ablation"]
    assert [sum(row[part] for part in ("teacher", "peer", "masked")) for row in rows] == [0, 1, 2, 3]
    assert [row["nme"] for row in rows] == [0.0350, 0.0346, 0.0344, 0.0339]


def test_costs_stand_beside_the_errors_of_the_same_network():
    table = costs_and_nme().set_index("method")
    assert list(table.columns) == ["params", "macs", "common", "challenge", "full"]
    assert len(table) == len(published()["errors"]["300w"])
    for slim in ("S-HRNet", "SD-HRNet_1", "SD-HRNet_2"):
        assert table.loc[slim, ["params", "macs"]].tolist() == [0.98e6, 0.59e9]
    assert costs_and_nme("cofw").set_index("method").loc["SD-HRNet_1", "params"] == 1.05e6
    assert table.loc["ODN", ["params", "macs"]].isna().all()
    assert table.loc["SRN", "params"] == 19.89e6
    assert table["macs"].isna()["SRN"]


def test_methods_are_joined_with_every_cost_there_is():
    named = {method for table in published()["errors"].values() for method in table}
    slim = set(published()["slim"].values())
    assert set(published()["cost"]) <= named | slim


def test_an_unknown_data_set_is_refused():
    with refused(DataError, "'cowf'", "'cofw'"):
        costs_and_nme("cowf")
