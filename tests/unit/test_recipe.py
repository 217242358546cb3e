"""Recipes: the shipped ones, refusals with hints, --set, extends, and other spaces and datasets."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from nasface import plugins
from nasface.errors import RecipeError
from nasface.importing import allowing
from nasface.recipe import assemble, listing, load, override, read, resolve
from nasface.step import Optimizer
from tests.refusal import names, refused

RECIPE = """
description: small
space: {name: hrsupernet, options: {width: 12, depth: 2, stages: 6, stem_channels: 32}}
data: {name: synthetic, input_size: 64, options: {train: 40, test: 8}}
search: {name: l1, epochs: 3, options: {alpha_lr: 0.25}, optimizer: {lr: 0.5, schedule: one_cycle}}
prune: {name: share, options: {share: 0.5}}
"""


def written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


RECIPES = [row["name"] for row in listing() if row["kind"] == "recipe"]  # experiments have tests of their own


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A recipe that no one else edits."""
    return written(tmp_path, "mine.yaml", RECIPE)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_load_and_say_what_they_are(name):
    recipe = load(name)
    assert recipe.description
    assert plugins.space(recipe.space.name, recipe.space.options).graph.max_stride <= recipe.data.input_size
    plugins.searcher(recipe.search.name, recipe.search.options)
    plugins.pruner(recipe.prune.name, recipe.prune.options)
    assert {"kind": "recipe", "name": name}.items() <= next(row for row in listing() if row["name"] == name).items()


@pytest.mark.parametrize("name", RECIPES)
def test_the_resolved_recipe_reads_back_as_itself(tmp_path, name):
    recipe = load(name)
    again = load(written(tmp_path, "resolved.yaml", recipe.to_yaml()))
    assert again == recipe
    assert again.digest == recipe.digest
    assert again.to_yaml() == recipe.to_yaml()


def test_the_digest_is_of_what_a_search_depends_on():
    recipe = load("demo")
    assert load("demo", ["description=other", "data.root=/elsewhere", "distill.epochs=3"]).digest == recipe.digest
    assert load("demo", ["finetune.epochs=3"]).digest != recipe.digest


def test_a_key_with_its_default_keeps_the_digests_of_recipes_that_did_not_have_it():
    assert load("300w").digest == "70bfb3e0a513eab9"
    assert load("300w", ["task.loss=adaptive_wing"]).digest != load("300w").digest
    within = ["prune={name: budget, options: {macs: 8000000}}"]
    assert load("300w", within).digest == "54c032de05ca1ca5"
    assert load("300w", [*within, "prune.options.runtime=onnxruntime"]).digest != load("300w", within).digest


def test_the_paper_settings():
    paper, wflw, cofw = load("300w"), load("wflw"), load("cofw")
    assert paper.search.optimizer == Optimizer(lr=1e-4, weight_decay=4e-5, schedule="steps", milestones=(40, 50))
    assert (paper.search.options["alpha_lr"], paper.search.options["penalty"]) == (1.8e-4, 5e-5)
    assert (cofw.search.options["alpha_lr"], cofw.search.options["penalty"]) == (3.5e-4, 5e-5)
    thresholds = [recipe.prune.options["threshold"] for recipe in (paper, cofw, wflw)]
    assert thresholds == [0.0017, 0.0042, 0.002]
    assert wflw.search.optimizer == Optimizer(lr=2e-4, weight_decay=4e-5, schedule="steps", milestones=(40, 50))
    assert paper.finetune.epochs == paper.search.epochs == 60


def test_the_digest_names_the_content(mine):
    plain = load(mine)
    assert load(mine, ["data.root=/somewhere/else"]).digest == plain.digest  # where the data lie does not matter
    others = [
        "seed=1",
        "search.epochs=4",
        "space.options.width=13",
        "augmentation.flip=0.4",
        "prune.options.share=0.4",
    ]
    assert len({plain.digest, *(load(mine, [change]).digest for change in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ("seeed=1", ["'seeed'", "'seed'"]),
        ("serch.epochs=1", ["'serch'", "'search'"]),
        ("search.epoch=1", ["'search.epoch'", "'epochs'"]),
        ("search.optimizer.learning=1", ["'search.optimizer.learning'", "lr"]),
        ("augmentation.rotate=1", ["'augmentation.rotate'", "'rotation'"]),
        ("search.options.penalti=1", ["searcher 'l1'", "'penalti'", "'penalty'"]),
        ("space.options.wdth=1", ["search space 'hrsupernet'", "'wdth'", "'width'"]),
        ("prune.options.shar=1", ["pruner 'share'", "'shar'", "'share'"]),
        ("data.options.trains=1", ["synthetic", "'trains'", "'train'"]),
        ("space.name=hrsupernets", ["search space", "'hrsupernets'", "'hrsupernet'"]),
        ("search.name=nowhere:Search", ["searcher 'nowhere:Search'"]),
        ("prune.name=nasface.prune:shares", ["pruner 'nasface.prune:shares'"]),
        ("search.epochs=-1", ["search.epochs", "equal to 0", "-1"]),
        ("training.batch=1", ["training.batch", "equal to 2"]),
        ("augmentation.rotation=181", ["augmentation.rotation", "180"]),
        ("search.optimizer.lr=0", ["search.optimizer.lr", "greater than 0"]),
        ("search.optimizer.warmup=1", ["search.optimizer.warmup", "less than 1"]),
        ("search.options.alpha_share=0", ["alpha_share", "greater than 0"]),
        ("prune.options.share=1.5", ["share", "equal to 1"]),
        ("space.options.encoder=vgg", ["encoder", "'mbconv'", "'residual'", "'vgg'"]),
        ("task.decoder=darc", ["task.decoder", "'quarter'", "'dark'", "'soft'", "'centroid'"]),
        ("task.loss=wing", ["task.loss", "'mse'", "'adaptive_wing'"]),
        ("data.input_size=many", ["data.input_size", "integer"]),
        ("data.held_out=1", ["data.held_out", "less than 1"]),
        ("search=l1", ["mine.yaml", "search: "]),
        ("prune.options=null", ["prune.options: "]),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(mine, change, facts):
    with refused(RecipeError, *facts):
        load(mine, [change])


def test_set_takes_yaml_values_in_order(mine):
    content = {"search": {"epochs": 5}}
    override(
        content, ["search.epochs=7", "search.optimizer.milestones=[1, 2]", "description=a = b", "seed=1", "seed=2"]
    )
    assert content["search"] == {"epochs": 7, "optimizer": {"milestones": [1, 2]}}
    assert content["description"] == "a = b"
    assert content["seed"] == 2
    recipe = load(mine, ["search.options.penalty=5e-5", "data.root=~/faces", "search.optimizer.milestones=[3]"])
    assert recipe.search.options["penalty"] == 5e-5  # YAML 1.1 takes 5e-5 for a word
    assert recipe.data.root == Path("~/faces")
    assert recipe.search.optimizer.milestones == (3,)


def test_another_plugin_starts_from_its_own_options_wherever_they_are_set(mine):
    other = ["search.options.macs=3.0e+6", "search.name=hot", "search.options.start=0.1"]
    options = load(mine, other).search.options
    assert (options["macs"], options["start"]) == (3e6, 0.1)
    assert load(mine, ["search={epochs: 3, options: {penalty: 0.5}}", "search.name=prox"]).search.name == "prox"
    assert load(mine, ["search.name=l1"]) == load(mine)  # the same plug-in keeps what the recipe gives it


@pytest.mark.parametrize("text", ["search.epochs", "=3", " =3", "search.epochs: 3"])
def test_set_of_another_form_is_refused(text):
    with refused(RecipeError, "--set", repr(text), "a.b=value"):
        override({}, [text])


def test_set_cannot_go_through_a_value_or_take_broken_yaml(mine):
    with refused(RecipeError, "--set", "search.epochs.more=3", "'epochs'"):
        load(mine, ["search.epochs.more=3"])
    with refused(RecipeError, "--set", "search.epochs=[1", "YAML"):
        load(mine, ["search.epochs=[1"])


def test_extends_merges_section_by_section(tmp_path):
    written(tmp_path, "base.yaml", """
        seed: 3
        search: {name: l1, epochs: 9, options: {alpha_lr: 0.5, penalty: 0.25}, optimizer: {lr: 0.125, name: sgd}}
        finetune: {epochs: 4}
    """)  # fmt: skip
    middle = written(tmp_path, "sub/middle.yaml", "extends: ../base.yaml\nsearch: {options: {penalty: 1.0}}\n")
    last = written(tmp_path, "last.yaml", "extends: sub/middle.yaml\nsearch: {optimizer: {lr: 2.0}}\nseed: 4\n")
    recipe = load(last)
    assert (recipe.seed, recipe.search.epochs, recipe.finetune.epochs) == (4, 9, 4)
    assert (recipe.search.options["alpha_lr"], recipe.search.options["penalty"]) == (0.5, 1.0)
    assert (recipe.search.optimizer.lr, recipe.search.optimizer.name) == (2.0, "sgd")
    assert load(middle).search.optimizer.lr == 0.125
    shipped_one = load(written(tmp_path, "own.yaml", "extends: demo\nseed: 9\n"))
    assert shipped_one == load("demo", ["seed=9"])


def test_a_plugin_of_another_name_starts_from_its_own_defaults(tmp_path):
    base = written(tmp_path, "base.yaml", "prune: {name: threshold, options: {threshold: 0.5}}\n")
    other = written(tmp_path, "a.yaml", f"extends: {base}\nprune: {{name: share, options: {{share: 0.25}}}}\n")
    assert load(other).prune.options == {"share": 0.25}
    own = written(
        tmp_path, "b.yaml", f"extends: {base}\nprune: {{name: 'tiny:needy_pruner', options: {{edges: 20}}}}\n"
    )
    with allowing("tiny:needy_pruner"):
        assert load(own).prune.options == {"edges": 20, "bonus": 0.5}
    same = written(tmp_path, "c.yaml", "extends: 300w\nsearch: {name: l1, options: {penalty: 1.0}}\n")
    assert load(same).search.options["alpha_lr"] == 1.8e-4
    bare = written(tmp_path, "d.yaml", f"extends: {base}\nprune: {{name: share}}\n")
    with refused(RecipeError, "pruner 'share'", "share: field required"):
        load(bare)


def test_options_of_the_default_plugin_are_inherited(tmp_path):
    written(tmp_path, "base.yaml", "search: {options: {alpha_lr: 0.5}}\n")
    child = written(tmp_path, "child.yaml", "extends: base.yaml\nsearch: {name: l1, options: {penalty: 1.0}}\n")
    assert load(child).search.options["alpha_lr"] == 0.5


def test_sections_beside_another_plugin_are_merged_too(tmp_path):
    written(tmp_path, "base.yaml", "search: {name: l1, options: {}, optimizer: {name: sgd, lr: 0.5}}\n")
    text = "extends: base.yaml\nsearch: {name: 'nasface.search.l1:L1Searcher', optimizer: {lr: 0.25}}\n"
    assert load(written(tmp_path, "child.yaml", text)).search.optimizer == Optimizer("sgd", lr=0.25)


def test_a_circle_is_refused(tmp_path):
    one = written(tmp_path, "one.yaml", "extends: two.yaml\n")
    written(tmp_path, "two.yaml", "extends: one.yaml\n")
    first, second = (str(tmp_path.resolve() / name) for name in ("one.yaml", "two.yaml"))
    with refused(RecipeError, "circle", f"{first} -> {second} -> {first}"):
        load(one)
    with refused(RecipeError, "circle", "self.yaml"):
        load(written(tmp_path, "self.yaml", "extends: self.yaml\n"))


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("- a\n- b\n", ["a.yaml", "list", "mapping"]),
        ("a: [1\n", ["a.yaml", "YAML"]),
        ("extends: nowhere.yaml\n", ["nowhere.yaml"]),
        ("extends: 301w\n", ["'301w'", "'300w'"]),
        ("space: {name: hrnet}\nspcae: 1\n", ["a.yaml", "'spcae'", "'space'"]),
    ],
)
def test_files_that_are_no_recipes(tmp_path, text, facts):
    with refused(RecipeError, *facts):
        load(written(tmp_path, "a.yaml", text))


def test_unknown_recipes():
    with refused(RecipeError, "'300'", "'300w'", ".yaml"):
        load("300")
    with refused(RecipeError, "nowhere.yml"):
        load("nowhere.yml")
    with refused(RecipeError, "nowhere.yaml"):
        load("nowhere.yaml")


def test_another_space_drops_what_it_does_not_know_with_a_warning(caplog, mine):
    with caplog.at_level(logging.WARNING):
        recipe = assemble(mine, "hrnet", None, None)
    (record,) = caplog.records
    names(record.getMessage(), "'hrnet'", "stages")
    assert recipe.space.name == "hrnet"
    assert {k: recipe.space.options[k] for k in ("width", "depth", "stem_channels", "encoder")} == {
        "width": 12, "depth": 2, "stem_channels": 32, "encoder": "residual",
    }  # fmt: skip
    caplog.clear()
    assert assemble(mine, "hrsupernet", None, None) == load(mine)
    assert not caplog.records


def test_another_dataset_drops_the_options_of_the_old_one(mine):
    recipe = assemble(mine, None, "300w", Path("/faces"), ["seed=5"])
    assert (recipe.data.name, recipe.data.root, recipe.data.input_size) == ("300w", Path("/faces"), 64)
    assert "train" not in recipe.data.options
    assert recipe.seed == 5


def test_the_recipe_of_a_dataset_is_the_default():
    assert assemble(None, None, "wflw", None) == load("wflw")
    assert assemble(None, None, None, None) == load("300w")
    assert assemble(None, None, "synthetic", None).data.name == "synthetic"
    assert assemble(None, None, "synthetic", None).space == load("300w").space


def test_reading_leaves_defaults_out_and_resolving_fills_them_in():
    content = read("cofw")
    assert "extends" not in content
    assert content["data"]["name"] == "cofw"
    assert "box_scale" not in content["data"]
    full = resolve(content, "here")
    assert full.data.box_scale == 1.25
    assert set(yaml.safe_load(full.to_yaml())) == set(type(full).model_fields)
    with refused(RecipeError, "here", "'x'"):
        resolve({**content, "x": 1}, "here")


OLD = """
space: {name: hrsupernet, options: {encoder: mbconv, stage1: null, width: 12, depth: 2, stages: 6, resolutions: 4,
  stem_channels: 32, alpha: null, relu_after_identity: true}}
data: {name: synthetic, input_size: 64, options: {landmarks: 68, train: 40, test: 8, seed: 0, size: 192}}
search:
  name: l1
  options: {alpha_lr: 0.25, penalty: 5.0e-05, alpha_share: 1.0, alpha_schedule: constant, warmup_epochs: 0,
    importance: IMPORTANCE}
  epochs: 3
  optimizer: {name: adam, lr: 0.5, weight_decay: 0.0, schedule: one_cycle, milestones: [], drop: 0.1, warmup: 0.2}
prune: {name: share, options: {share: 0.5}}
"""  # as nasface wrote recipe.yaml while the criterion was an option of the searcher


@pytest.mark.parametrize("name", ["alpha", "alpha_gain", "taylor"])
def test_recipes_from_before_there_were_criteria_mean_the_same(tmp_path, mine, name):
    old = load(written(tmp_path, "old.yaml", OLD.replace("IMPORTANCE", name)))
    assert old.criterion.name == name
    assert "importance" not in old.search.options
    new = load(mine, [f"criterion.name={name}"])
    assert new.digest == old.digest
    assert load(mine, [f"search.options.importance={name}"]) == new
    assert load(mine, ["criterion.name=leave_one_out"]).digest != new.digest


def test_the_searchers_of_comparisons_may_have_their_old_names(tmp_path):
    for name in plugins.CHOOSERS:
        old = f"nasface.stages.experiment.compare.{name.rpartition('.')[2]}"
        text = "search: {name: 'NAME', options: {OPTIONS}}".replace("OPTIONS", "macs: 1.0e+6" * ("Best" in name))
        read_back = load(written(tmp_path, "old.yaml", text.replace("NAME", old)))
        assert read_back.search.name == name
        assert read_back.digest == load(written(tmp_path, "new.yaml", text.replace("NAME", name))).digest
        assert plugins.searcher(name, read_back.search.options).__class__.__module__ == "nasface.search.choosers"


def test_the_old_option_and_the_new_section_override_one_another_along_extends(tmp_path):
    written(tmp_path, "old.yaml", OLD.replace("IMPORTANCE", "taylor"))
    assert load(written(tmp_path, "a.yaml", "extends: old.yaml\n")).criterion.name == "taylor"
    later = "extends: old.yaml\ncriterion: {name: alpha}\n"
    assert load(written(tmp_path, "b.yaml", later)).criterion.name == "alpha"
    back = "extends: b.yaml\nsearch: {options: {importance: alpha_gain}}\n"
    assert load(written(tmp_path, "c.yaml", back)).criterion.name == "alpha_gain"


def test_an_option_of_that_name_of_another_searcher_is_its_own(tmp_path):
    text = "search: {name: 'tiny:ImportantSearcher', options: {importance: 3}}\n"
    with allowing("tiny:ImportantSearcher"):
        recipe = load(written(tmp_path, "own.yaml", text))
    assert recipe.search.options == {"importance": 3}
    assert recipe.criterion.name == "alpha"
