"""Recipes: the shipped ones, refusals with hints, --set, extends, and other spaces and data sets."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from nasface import plugins
from nasface.errors import RecipeError
from nasface.recipe import assemble, listing, load, override, read, resolve
from nasface.step import Optimizer

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
    ("change", "message"),
    [
        ("seeed=1", r"unknown key 'seeed'; did you mean 'seed'"),
        ("serch.epochs=1", r"unknown key 'serch'; did you mean 'search'"),
        ("search.epoch=1", r"unknown key 'search.epoch'; did you mean 'epochs'"),
        ("search.optimizer.learning=1", r"unknown key 'search.optimizer.learning'; known: .*lr"),
        ("augmentation.rotate=1", r"unknown key 'augmentation.rotate'; did you mean 'rotation'"),
        ("search.options.penalti=1", r"options of searcher 'l1': unknown key 'penalti'; did you mean 'penalty'"),
        ("space.options.wdth=1", r"options of search space 'hrsupernet': unknown key 'wdth'; did you mean 'width'"),
        ("prune.options.shar=1", r"options of pruner 'share': unknown key 'shar'; did you mean 'share'"),
        ("data.options.trains=1", r"synthetic.*'trains'.*'train'"),
        ("space.name=hrsupernets", r"no search space 'hrsupernets'; did you mean 'hrsupernet'"),
        ("search.name=nowhere:Search", r"the searcher 'nowhere:Search' cannot be imported"),
        ("prune.name=nasface.prune:shares", r"the pruner 'nasface.prune:shares' cannot be imported"),
        ("search.epochs=-1", r"search.epochs: input should be greater than or equal to 0 \(got -1\)"),
        ("training.batch=1", r"training.batch: input should be greater than or equal to 2"),
        ("augmentation.rotation=181", r"augmentation.rotation: .*180"),
        ("search.optimizer.lr=0", r"search.optimizer.lr: input should be greater than 0"),
        ("search.optimizer.warmup=1", r"search.optimizer.warmup: input should be less than 1"),
        ("search.options.alpha_share=0", r"alpha_share: input should be greater than 0"),
        ("prune.options.share=1.5", r"share: input should be less than or equal to 1"),
        ("space.options.encoder=vgg", r"encoder: input should be 'mbconv' or 'residual' \(got 'vgg'\)"),
        ("task.decoder=darc", r"task.decoder: input should be 'quarter', 'dark' or 'soft'"),
        ("data.input_size=many", r"data.input_size: .*integer"),
        ("data.held_out=1", r"data.held_out: input should be less than 1"),
        ("search=l1", r"mine.yaml': search: "),
        ("prune.options=null", r"prune.options: "),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(mine, change, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load(mine, [change])
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("text", ["search.epochs", "=3", " =3", "search.epochs: 3"])
def test_set_of_another_form_is_refused(text):
    with pytest.raises(RecipeError, match=r"is not of the form a.b=value, for example"):
        override({}, [text])


def test_set_cannot_go_through_a_value_or_take_broken_yaml(mine):
    with pytest.raises(RecipeError, match="'epochs' is a value, not a section"):
        load(mine, ["search.epochs.more=3"])
    with pytest.raises(RecipeError, match="the value is not valid YAML"):
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
    assert load(own).prune.options == {"edges": 20, "bonus": 0.5}
    same = written(tmp_path, "c.yaml", "extends: 300w\nsearch: {name: l1, options: {penalty: 1.0}}\n")
    assert load(same).search.options["alpha_lr"] == 1.8e-4
    bare = written(tmp_path, "d.yaml", f"extends: {base}\nprune: {{name: share}}\n")
    with pytest.raises(RecipeError, match="share: field required"):
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
    with pytest.raises(RecipeError, match=r"circle: .*one.yaml -> .*two.yaml -> .*one.yaml; break it"):
        load(one)
    with pytest.raises(RecipeError, match="circle"):
        load(written(tmp_path, "self.yaml", "extends: self.yaml\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must be a mapping of sections"),
        ("a: [1\n", "is not valid YAML"),
        ("extends: nowhere.yaml\n", "cannot read the recipe .*nowhere.yaml"),
        ("extends: 301w\n", "there is no recipe .*301w"),
        ("space: {name: hrnet}\nspcae: 1\n", "unknown key 'spcae'; did you mean 'space'"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, text, message):
    with pytest.raises(RecipeError, match=message):
        load(written(tmp_path, "a.yaml", text))


def test_unknown_recipes():
    with pytest.raises(RecipeError, match=r"there is no recipe '300'; did you mean '300w'\? \(or give the path"):
        load("300")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*nowhere.yml"):
        load("nowhere.yml")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        load("nowhere.yaml")


def test_another_space_drops_what_it_does_not_know_with_a_warning(caplog, mine):
    with caplog.at_level(logging.WARNING):
        recipe = assemble(mine, "hrnet", None, None)
    (record,) = caplog.records
    assert record.getMessage() == "search space 'hrnet' has no option stages; the recipe's is not used"
    assert recipe.space.name == "hrnet"
    assert {k: recipe.space.options[k] for k in ("width", "depth", "stem_channels", "encoder")} == {
        "width": 12, "depth": 2, "stem_channels": 32, "encoder": "residual",
    }  # fmt: skip
    caplog.clear()
    assert assemble(mine, "hrsupernet", None, None) == load(mine)
    assert not caplog.records


def test_another_data_set_drops_the_options_of_the_old_one(mine):
    recipe = assemble(mine, None, "300w", Path("/faces"), ["seed=5"])
    assert (recipe.data.name, recipe.data.root, recipe.data.input_size) == ("300w", Path("/faces"), 64)
    assert "train" not in recipe.data.options
    assert recipe.seed == 5


def test_the_recipe_of_a_data_set_is_the_default():
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
    with pytest.raises(RecipeError, match=r"^here: unknown key 'x'"):
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
    assert (old.criterion.name, old.criterion.options) == (name, {})
    assert "importance" not in old.search.options
    new = load(mine, [f"criterion.name={name}"])
    assert new.digest == old.digest
    assert load(mine, [f"search.options.importance={name}"]) == new
    assert load(mine, ["criterion.name=leave_one_out"]).digest != new.digest


def test_the_old_option_and_the_new_section_override_one_another_along_extends(tmp_path):
    written(tmp_path, "old.yaml", OLD.replace("IMPORTANCE", "taylor"))
    assert load(written(tmp_path, "a.yaml", "extends: old.yaml\n")).criterion.name == "taylor"
    later = "extends: old.yaml\ncriterion: {name: alpha}\n"
    assert load(written(tmp_path, "b.yaml", later)).criterion.name == "alpha"
    back = "extends: b.yaml\nsearch: {options: {importance: alpha_gain}}\n"
    assert load(written(tmp_path, "c.yaml", back)).criterion.name == "alpha_gain"


def test_an_option_of_that_name_of_another_searcher_is_its_own(tmp_path):
    text = "search: {name: 'tiny:ImportantSearcher', options: {importance: 3}}\n"
    recipe = load(written(tmp_path, "own.yaml", text))
    assert recipe.search.options == {"importance": 3}
    assert recipe.criterion.name == "alpha"
