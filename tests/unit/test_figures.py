"""Figures: what stands where on them, what they say, and that they are written the same every time."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from nasface import metrics, pareto
from nasface.errors import RunError
from nasface.report import Colour, figures, write
from nasface.report.published import costs_and_nme
from tests.refusal import refused

pytestmark = pytest.mark.slow

FULL = "nme_full_finetuned"
SVG = "{http://www.w3.org/2000/svg}"


def sweep(seed: int = 0, networks: int = 8, best: float = 0.034) -> pd.DataFrame:
    """A sweep's table: a supernet without figures after fine-tuning, slim networks, and one that fell apart."""
    random = np.random.default_rng(seed)
    shares = np.linspace(0.1, 1, networks)
    rows = [{"network": "supernet", "state": "done", "params": 3.4e6, "macs": 1.3e9, "nme_full_inherited": best}]
    rows += [
        {
            "network": f"e{i:03d}-abc",
            "state": "done",
            "pruner": ("threshold", "random seed=3")[i % 2],
            "params": 1e6 + 2e6 * share,
            "macs": 0.5e9 + 0.8e9 * share,
            "latency_ms": 5 + share,
            FULL: best * (1.4 - 0.4 * share + 0.2 * random.random()),
            "held_out_nme_finetuned": best * 1.2,
            "images_full": 689.0,
        }
        for i, share in enumerate(shares)
    ]
    return pd.DataFrame([*rows, {"network": "e000-xyz", "state": "disconnected", "error": "no path"}])


def legend(figure: Figure) -> list[str]:
    """All texts of all legends."""
    found = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [text.get_text() for one in found for text in one.get_texts()]


def scatter(figure: Figure, label: str):
    (found,) = [part for part in figure.axes[0].collections if str(part.get_label()).startswith(label)]
    return found


def line(figure: Figure, label: str):
    (found,) = [part for axes in figure.axes for part in axes.lines if part.get_label() == label]
    return found


def names(figure: Figure) -> dict[str, Annotation]:
    return {part.get_text(): part for part in figure.axes[0].texts if isinstance(part, Annotation)}


# ---- files


def small() -> Figure:
    return figures.ced({"a $1 & <b>": [0.02, 0.05], "slim": [0.03, 0.04]}, title="two $ of α")


def test_two_saves_are_equal_byte_by_byte(tmp_path):
    first = figures.save(small(), tmp_path / "one.net")
    again = figures.save(small(), tmp_path / "two" / "one.net")
    assert [path.name for path in first] == ["one.net.svg", "one.net.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    figure = small()
    assert [p.read_bytes() for _ in range(2) for p in figures.save(figure, tmp_path / "x")] == 2 * [
        path.read_bytes() for path in first
    ]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["one.net.png", "one.net.svg"]


def test_a_users_style_changes_nothing(tmp_path):
    first, _ = figures.save(small(), tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "path"}):
        other, _ = figures.save(small(), tmp_path / "styled")
    assert first.read_bytes() == other.read_bytes()


def test_svg_is_xml_with_its_text_as_text(tmp_path):
    root = ElementTree.parse(figures.save(small(), tmp_path / "figure")[0]).getroot()
    texts = "|".join(root.itertext())
    assert "two $ of α" in texts
    assert "a $1 & <b>: AUC 0.650, FR 0.0 %" in texts
    assert not any(re.search(r"<!--|Date", text) for text in root.itertext())


def test_a_pdf_is_written_and_other_formats_are_refused(tmp_path):
    assert write(small(), tmp_path / "figure.PDF").read_bytes().startswith(b"%PDF")
    with refused(RunError, "figure.gif", ".svg, .pdf, .png"):
        write(small(), tmp_path / "figure.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.PDF"]


def test_inline_figures_share_no_id_and_refer_to_their_own():
    inline = [figures.svg(small(), "a"), figures.svg(small(), "b"), figures.svg(figures.ced({"c": [0.01]}))]
    seen: set[str] = set()
    for text in inline:
        root = ElementTree.fromstring(text)
        assert root.tag == f"{SVG}svg"
        ids = {element.get("id") for element in root.iter() if element.get("id")}
        assert not ids & seen
        seen |= ids
        used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
        assert used
        assert used <= ids
        (rule,) = [element.text for element in root.iter(f"{SVG}style")]
        assert rule.startswith(f"#{root.get('id')} ")  # not for all of the page


def test_no_pyplot_state_is_left():
    small()
    pyplot = __import__("sys").modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


# ---- cost against error


def test_front_is_a_step_line_through_the_slim_networks_that_none_beats():
    table = sweep()
    drawn = line(figures.pareto(table, score=FULL, input_size=128, published=False), "front")
    slim = table[table["macs"].notna() & (table["network"] != "supernet")]
    front = slim[pareto.front(slim[["macs", FULL]])].sort_values("macs")
    assert 1 < len(front) < len(slim)
    assert drawn.get_drawstyle() == "steps-post"  # an error holds until the next network costs no more
    assert drawn.get_xdata() == pytest.approx(front["macs"] / 1e9)
    assert drawn.get_ydata() == pytest.approx(100 * front[FULL])


def test_circles_are_as_large_as_the_networks_and_the_supernet_is_a_star():
    table = sweep()
    figure = figures.pareto(table, score=FULL, input_size=128)
    threshold, random = scatter(figure, "slim networks, threshold"), scatter(figure, "slim networks, random")
    areas = np.concatenate([threshold.get_sizes(), random.get_sizes()])
    params = np.concatenate([table["params"][1:-1:2], table["params"][2:-1:2]])
    assert areas / params == pytest.approx(np.full(8, areas[0] / params[0]))
    star = scatter(figure, "supernet")
    assert star.get_offsets().tolist() == [pytest.approx([1.3, 3.4])]  # its one state stands in for every stage
    assert len(star.get_paths()[0].vertices) == 11
    methods = costs_and_nme().dropna(subset=["macs", "params"])
    published = scatter(figure, "published").get_sizes()
    assert published.max() / areas[0] == pytest.approx(methods["params"].max() / params[0])


def test_published_methods_are_hollow_grey_and_named():
    figure = figures.pareto(sweep(), score=FULL, input_size=128)
    methods = costs_and_nme().dropna(subset=["macs"])
    circles = scatter(figure, "published")
    assert circles.get_label() == "published, 256 px, trained on all 3148 faces"
    assert circles.get_label() in legend(figure)
    assert circles.get_facecolor().size == 0
    assert circles.get_edgecolor().tolist() == [list(to_rgba(Colour.grey))]
    wanted = methods[["macs", "full"]].to_numpy() * [1e-9, 100]
    assert np.asarray(circles.get_offsets()) == pytest.approx(wanted)
    assert set(methods["method"]) <= set(names(figure))


@pytest.mark.parametrize(
    "changes",
    [{"published": False}, {"cost": "latency_ms"}, {"score": "held_out_nme_finetuned"}],
    ids=["unwanted", "another cost", "another set of faces"],
)
def test_published_methods_stay_away_where_they_do_not_compare(changes):
    figure = figures.pareto(sweep(), **{"score": FULL, "input_size": 128} | changes)
    assert not any("published" in text for text in legend(figure))
    assert "HRNet" not in names(figure)


@pytest.mark.parametrize("cost", ["macs", "params"])
def test_names_are_legible(cost):
    figure = figures.pareto(sweep(), score=FULL, cost=cost, input_size=128)
    boxes = {name: Text.get_window_extent(text) for name, text in names(figure).items()}  # without leader lines
    frame = figure.axes[0].get_window_extent()
    assert len(boxes) > 14
    for name, box in boxes.items():
        inside = type(box).intersection(box, frame)
        assert inside is not None
        assert inside.width * inside.height > 0.9 * box.width * box.height, name
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        shared = type(a).intersection(a, b)
        covered = shared.width * shared.height if shared else 0
        assert covered < 0.2 * min(a.width * a.height, b.width * b.height), f"{one} lies on {other}"


def test_labels_say_unit_subset_images_and_input_size():
    axes = figures.pareto(sweep(), score=FULL, input_size=128).axes[0]
    assert axes.get_xlabel() == "MACs (G), sweep at 128 px"
    assert axes.get_ylabel() == "inter-ocular NME (%)\nfull, 689 images, fine-tuned"
    own = figures.pareto(sweep(), score=FULL, input_size=128, label="error", cost="latency_ms").axes[0]
    assert own.get_ylabel() == "error"
    assert own.get_xlabel() == "latency (ms), sweep at 128 px"
    assert figures.score_label(sweep(), "held_out_nme") == "inter-ocular NME (%)\nheld-out faces"
    assert figures.score_label(sweep(), "nme_common_inherited") == "inter-ocular NME (%)\ncommon, as pruned"


def test_wide_ranges_are_logarithmic_and_narrow_ones_are_not():
    wide, narrow = (figures.pareto(sweep(), score=FULL, input_size=9, published=p).axes[0] for p in (True, False))
    assert (wide.get_xscale(), narrow.get_xscale()) == ("log", "linear")
    assert [wide.xaxis.get_major_formatter()(tick) for tick in (0.5, 20)] == ["0.5", "20"]


def test_networks_far_above_the_others_are_counted_instead_of_shown():
    table = sweep()
    table.loc[1, FULL] = 0.47
    axes = figures.pareto(table, score=FULL, input_size=128, published=False).axes[0]
    assert axes.get_title(loc="right") == "1 more above, up to 47 %"
    assert axes.get_ylim()[1] < 6
    assert axes.get_xlim()[0] > table["macs"].min() / 1e9
    assert not figures.pareto(sweep(), score=FULL, input_size=128).axes[0].get_title(loc="right")


def test_a_table_without_the_optional_columns_is_drawn():
    figure = figures.pareto(pd.DataFrame({"macs": [2e6, 1e6], FULL: ["0.04", "0.05"]}), score=FULL, input_size=64)
    assert line(figure, "front").get_ydata() == pytest.approx([5, 4])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (sweep().drop(columns="macs"), ["'macs'", "params"]),
        (sweep().assign(macs=np.nan), ["'macs'", "'nme_full_finetuned'"]),
    ],
)
def test_what_cannot_be_drawn_is_refused(table, said):
    with refused(RunError, *said):
        figures.pareto(table, score=FULL, input_size=128)


# ---- Figure 6


def test_figure6_has_a_panel_an_encoder_and_a_mean_with_its_band():
    curves = {
        "hrnet-residual": [sweep(0), sweep(1), sweep(2)],
        "hrsupernet-residual": [sweep(3)],
        "hrsupernet-mbconv": [sweep(4), sweep(5)],
    }
    curves["hrnet-residual"] = [table.assign(macs=5 * table["macs"]) for table in curves["hrnet-residual"]]
    curves["hrsupernet-residual"] = [table.assign(macs=5 * table["macs"]) for table in curves["hrsupernet-residual"]]
    figure = figures.figure6(curves, score=FULL)
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "linear"]  # neither panel is wide by itself
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a   residual units", "b   stacked MBConvs"]
    assert legend(figure) == ["HRNet, mean of 3 seeds ± std", "HRSuperNet, 1 seed", "HRSuperNet, mean of 2 seeds ± std"]
    assert [len(axes.lines) for axes in figure.axes] == [3 + 1 + 1, 2 + 1]
    slim = [table[table["network"] != "supernet"] for table in curves["hrnet-residual"]]
    grid = np.unique(pd.concat(slim)["macs"].dropna())
    wanted = pareto.spread(slim, "macs", FULL, grid, by="held_out_nme_finetuned")  # held-out faces choose
    mean = line(figure, "HRNet, mean of 3 seeds ± std")
    assert mean.get_xdata() == pytest.approx(grid / 1e9)
    assert mean.get_ydata() == pytest.approx(100 * wanted.mean_G)
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(100 * (wanted.mean_G + wanted.std_G).max())
    single = line(figure, "HRSuperNet, 1 seed")
    assert len(single.get_xdata()) == 8  # slim networks, in the order of their cost
    assert (np.diff(single.get_xdata()) > 0).all()


def test_figure6_leaves_out_a_panel_without_curves_and_refuses_other_names():
    figure = figures.figure6({"hrnet-mbconv": [sweep()], "hrnet-residual": []}, score=FULL)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["b   stacked MBConvs"]
    assert figure.axes[0].get_ylabel() == "inter-ocular NME (%)\nfull, 689 images, fine-tuned"
    with refused(RunError, "'hrnet-mbcon'", "'hrnet-mbconv'"):
        figures.figure6({"hrnet-mbcon": [sweep()]}, score=FULL)
    with refused(RunError, "Figure 6", "hrnet-mbconv"):
        figures.figure6({"hrnet-mbconv": [sweep()[:1].assign(**{FULL: 0.1})]}, score=FULL)


# ---- CED, faces, training


def test_ced_is_the_share_of_images_at_or_below():
    nmes = np.array([0.09, 0.02, 0.03, 0.5, 0.03])
    figure = figures.ced({"slim": nmes}, limit=0.08, title="300W")
    axes = figure.axes[0]
    (curve,) = axes.lines
    for x in (1, 2, 2.9, 3, 8):
        at = np.searchsorted(curve.get_xdata(), x, side="right") - 1
        assert curve.get_ydata()[at] == pytest.approx(100 * np.mean(100 * nmes <= x))
    assert curve.get_drawstyle() == "steps-post"
    assert axes.get_ylabel() == "share of the 5 images (%)"
    assert axes.get_xlim() == (0, 8)
    assert legend(figure) == [f"slim: AUC {metrics.auc(nmes, 0.08):.3f}, FR 40.0 %"]


def test_ced_counts_images_by_curve_where_they_differ_and_missing_figures_as_failures():
    figure = figures.ced({"a": [0.01, np.nan], "b": [0.01, 0.02, 0.03, 0.04]})
    assert legend(figure)[0].startswith("a, 2 images: AUC")
    assert "FR 50.0 %" in legend(figure)[0]
    assert legend(figure)[1].startswith("b, 4 images: AUC")
    assert max(figure.axes[0].lines[0].get_ydata()) == 50
    assert max(figure.axes[0].lines[0].get_xdata()) == 10  # it goes on to the limit
    for curves in ({}, {"a": []}):
        with refused(RunError, "a" if curves else "any network"):
            figures.ced(curves)


def test_faces_join_predicted_and_true_points():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    true = random.uniform(2, 14, (8, 5, 2))
    predicted = true + random.normal(size=true.shape)
    figure = figures.faces(images, predicted, true, np.linspace(0.02, 0.09, 8), titles=list("abcdefgh"))
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 8
    assert shown[3].get_title() == "d, NME 5.00 %"
    assert np.array_equal(shown[3].images[0].get_array(), images[3])
    *joins, wanted, found = shown[3].lines
    assert len(joins) == 5
    assert [join.get_xydata().tolist() for join in joins] == np.stack([true[3], predicted[3]], axis=1).tolist()
    assert wanted.get_xydata().tolist() == true[3].tolist()
    assert found.get_xydata().tolist() == predicted[3].tolist()
    assert wanted.get_color() != found.get_color()
    assert legend(figure) == ["true", "predicted"]
    for count in (0, 7):
        with refused(RunError, f"{count} faces", "8 predictions"):
            figures.faces(images[:count], predicted, true, np.zeros(8))


def test_training_follows_the_stages():
    rows = [
        {
            "stage": "search",
            "epoch": e,
            "phase": p,
            "loss": 5.0 / e,
            **({"held_out_nme": 0.1 / e} if p[0] == "w" else {}),
        }
        for e in (1, 2, 3)
        for p in ("alpha", "weights")
    ]
    rows += [{"stage": "finetune", "epoch": e, "phase": "weights", "loss": 1.0, "held_out_nme": 0.02} for e in (1, 2)]
    figure = figures.training(pd.DataFrame(rows))
    losses, errors = figure.axes
    drawn = [(part.get_xdata().tolist(), part.get_color()) for part in losses.lines if len(part.get_xdata()) > 2]
    assert [xs for xs, _ in drawn] == [[1, 2, 3], [1, 2, 3]]
    assert drawn[0][1] != drawn[1][1]
    assert [4, 5] in [part.get_xdata().tolist() for part in losses.lines if hasattr(part.get_xdata(), "tolist")]
    known = [part.get_xydata().tolist() for part in errors.lines if len(part.get_xydata()) == 3]
    assert known == [[[1, pytest.approx(10)], [2, pytest.approx(5)], [3, pytest.approx(10 / 3)]]]
    assert [text.get_text() for text in losses.texts] == ["search", "finetune"]
    assert legend(figure) == ["alpha phase", "weights phase"]
    assert errors.get_ylabel() == "held-out NME (%)"


def test_training_needs_epochs():
    with refused(RunError, "'phase'"):
        figures.training(pd.DataFrame({"stage": ["a"], "epoch": [1], "loss": [1.0]}))
    with refused(RunError, "epoch"):
        figures.training(pd.DataFrame({"stage": [], "epoch": [], "phase": [], "loss": []}))
    without = pd.DataFrame({"stage": ["s"], "epoch": [1], "phase": ["weights"], "loss": [1.0]})
    assert len(figures.training(without).axes) == 2
