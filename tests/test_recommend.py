"""Which protocol suits my images: the search, its budget, and what may be said of its result."""

import dataclasses
import json
import math
import re
import shlex
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats

from analysis import unseen_n
from analysis.unseen_n import regrets
from tlprotocols.config.models import MODELS
from tlprotocols.errors import ConfigError
from tlprotocols.images import forget
from tlprotocols.planning.plan import resolved
from tlprotocols.records import Files
from tlprotocols.results import load as load_rows
from tlprotocols.searching import recommendation, space
from tlprotocols.searching.comparison import Interval, compared, correct
from tlprotocols.searching.prediction import Prediction, best_at, measured, nearest
from tlprotocols.searching.recommendation import OwnFile, Recommendation, recommend
from tlprotocols.searching.recommendation import _task as task_of
from tlprotocols.searching.search import REPLICATES, Options, Search, typed

SECONDS_A_RUN = 2.0
HARDER = (0.0, -0.05, 0.1, 0.02, -0.1)  # accuracy on each fold, beside that of all
PEAK = {"layers": 5, "freeze": 3, "high_lr_layers": 2, "decay_epochs": 7}


class Landscape:
    """Accuracies that depend on the setting and the fold, of runs that take two seconds of its own clock."""

    def __init__(self):
        self.now, self.cells = 0.0, []

    def clock(self):
        return self.now

    def __call__(self, cells):
        self.cells += cells
        self.now += SECONDS_A_RUN * len(cells)
        return [{"val_top1": self.accuracy(dict(text.split("=", 1) for text in cell))} for cell in cells]

    def accuracy(self, values):
        distance = sum(abs(int(values[key]) - best) / 8 for key, best in PEAK.items())
        rates = abs(math.log10(float(values["lr.high"]) / 0.03)) + abs(math.log10(float(values["lr.low"]) / 0.001))
        return 0.9 - 0.1 * distance - 0.1 * rates + HARDER[int(values["fold"])]


class Interrupted(Landscape):
    """Ctrl-C some seconds after the step that follows 40 runs has begun."""

    def __init__(self, after=0):
        super().__init__()
        self.after = after

    def __call__(self, cells):
        if len(self.cells) > 40:
            self.now += self.after
            raise KeyboardInterrupt
        return super().__call__(cells)


@pytest.fixture
def search(tmp_path, composed):
    """A search on a landscape; `folder` is the results folder."""

    def made(budget="400s", *overrides, sampler="tpe", folder="results", landscape=None):
        land = landscape or Landscape()
        task = ["dataset=glyphs", "n_per_class=25", f"results_dir={tmp_path / folder}", *overrides]
        options = Options(budget=budget, sampler=sampler)
        return Search(task, lambda cells: composed(*cells), land, options, clock=land.clock), land

    return made


def test_a_search_finds_better_settings_than_it_begins_with(search):
    one, land = search("600s")
    best = one.run(25)
    named = {tried.name: land.accuracy(tried.setting | {"fold": 0}) for tried in one.tried if tried.name}
    assert set(named) == {"fine_tune", "commonly_used", "linear_probe", "table2"}
    assert land.accuracy(best.setting | {"fold": 0}) > max(named.values()) + 0.05
    assert len(best.folds) == 5


def test_the_budget_has_room_for_the_comparison(search):
    """Each run takes two seconds; the last comparison trains four networks with three seeds on all images."""
    for budget in (100, 200, 600):
        one, land = search(f"{budget}s", folder=str(budget))
        one.run(25)
        at_end = SECONDS_A_RUN * 4 * REPLICATES * 5 / 4
        assert one.spent <= budget - at_end
        assert one.spent == land.now - SECONDS_A_RUN  # the first run trains the base network, outside of the budget
        assert one.spent > budget - at_end - 12 * SECONDS_A_RUN  # hardly less than a rung remains


def test_the_smallest_search_measures_what_it_begins_with(search):
    one, land = search("1s")
    best = one.run(25)
    assert [tried.name for tried in one.tried] == ["fine_tune", "commonly_used", "linear_probe", "table2"]
    assert len(land.cells) == 4
    assert best.setting == max(one.tried, key=lambda tried: tried.folds[0]).setting


def test_the_same_search_again_repeats_its_steps_and_adds_none(search):
    first, land = search()
    found = first.run(25)
    again, second = search()
    assert again.run(25).setting == found.setting
    assert second.cells == land.cells  # which are finished, and train nothing
    assert again.spent == first.spent
    assert again.steps == first.steps


def test_a_smaller_budget_adds_nothing_and_a_larger_one_goes_on(search):
    first, land = search("200s")
    first.run(25)
    smaller, same = search("100s")
    smaller.run(25)
    assert same.cells == land.cells
    larger, more = search("500s")
    larger.run(25)
    assert len(more.cells) > len(land.cells)
    before = {json.dumps(cell) for cell in land.cells}
    assert before <= {json.dumps(cell) for cell in more.cells}  # nothing that was trained is left out
    at_end = SECONDS_A_RUN * 4 * REPLICATES * 5 / 4
    assert larger.spent <= 500 - at_end


def test_an_interrupted_search_goes_on_where_it_ended(search):
    whole, land = search(folder="whole")
    whole.run(25)

    one, _ = search(folder="stopped", landscape=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        one.run(25)
    again, second = search(folder="stopped")
    again.run(25)
    place = "results_dir="
    strip = lambda cells: [[text for text in cell if not text.startswith(place)] for cell in cells]  # noqa: E731
    assert strip(second.cells) == strip(land.cells)


def test_the_time_of_an_interrupted_step_is_spent(search):
    whole, land = search(folder="whole")
    whole.run(25)

    one, _ = search(folder="stopped", landscape=Interrupted(after=100))
    with pytest.raises(KeyboardInterrupt):
        one.run(25)
    again, second = search(folder="stopped")
    again.run(25)
    assert again.before.seconds == 100
    assert again.spent <= again.seconds
    assert len(second.cells) < len(land.cells)


def test_settings_on_easy_folds_are_not_preferred(search):
    one, _ = search()
    one.run(25)
    a, b = one.tried[0], dataclasses.replace(one.tried[0], folds={2: one.tried[0].folds[0] + HARDER[2] - HARDER[0]})
    assert one.accuracy(b) == pytest.approx(one.accuracy(a), abs=1e-9)


def test_what_the_user_gives_is_not_searched(search):
    one, land = search("200s", "layers=6", "lr.high=0.02")
    best = one.run(25)
    assert set(one.ranges) == {"freeze", "high_lr_layers", "decay_epochs", "lr.low"}
    assert (best.setting["layers"], best.setting["lr.high"]) == (6, 0.02)
    assert all("layers=6" in cell and "lr.high=0.02" in cell for cell in land.cells)
    assert not any(text in one.plain for text in ("layers=6", "lr.high=0.02"))  # a baseline has its own


def test_a_random_search_begins_with_no_named_setting(search):
    one, _ = search("200s", sampler="random")
    one.run(25)
    assert {tried.name for tried in one.tried} == {""}


def test_a_damaged_state_is_named(search):
    one, _ = search("60s")
    one.run(25)
    (one.folder / "state.json").write_text("{")
    with pytest.raises(ConfigError, match=r"^state=.*state\.json: is damaged; remove it"):
        search("60s")


@pytest.mark.parametrize("model", list(MODELS))
def test_every_proposal_is_legal_for_every_network(model, composed):
    least = MODELS[model].pixels[0]
    task = [f"model={model}", "n_per_class=10", f"dataset.upscale={least if least > 32 else 0}"]
    config = composed(*task)
    ranges, values = space.space(config), space.values_of(config)
    for random in (True, False):
        for point in space.proposals(ranges, [], 20, random):
            setting = space.setting(point, values)
            found = composed(*task, *(f"{key}={value}" for key, value in setting.items()))
            assert found.freeze <= found.layers
            assert found.lr.low <= found.lr.high
            assert space.setting(space.point(setting, ranges, values), values) == pytest.approx(setting, rel=0.06)


def test_table_2_is_where_the_paper_has_it(composed):
    found = space.starts(lambda cells: composed(*cells), ["n_per_class=30"], 30)
    values = {key: found["table2"][key] for key in ("layers", "freeze", "high_lr_layers", "decay_epochs")}
    assert values == {"layers": 6, "freeze": 5, "high_lr_layers": 1, "decay_epochs": 5}  # of 25 images a class


def rows_of(best):
    """Accuracies of all settings of two factors, best at `best[n]` layers, on two units."""
    settings = [(layers, high) for layers in (3, 4, 5, 6, 7) for high in (1, 4, 8)]
    return pd.DataFrame(
        {
            **{"model": "alexnet_small", "dataset": "glyphs", "n_per_class": n, "split": split, "target": "B"},
            **{"layers": layers, "freeze": 0, "high_lr_layers": high, "decay_epochs": 5},
            "val_top1": 0.2 + 0.05 * math.log10(n) - 0.01 * (layers - peak) ** 2 - 0.002 * high + 0.001 * split,
        }
        for n, peak in best.items()
        for layers, high in settings
        for split in (0, 1)
    )


def test_the_best_setting_of_an_unseen_size_is_predicted():
    """The best number of layers goes with log n: between sizes the regression finds it, the nearest size does not."""
    table = measured(rows_of({10: 4, 40: 5, 640: 7}))
    assert len(table) == 3 * 15
    every = table[["layers", "freeze", "high_lr_layers", "decay_epochs"]].drop_duplicates()
    assert Prediction.fit(table).best(every, 160)["layers"] == 6
    assert best_at(table, nearest([10, 40, 640], 160))["layers"] != 6
    assert Prediction.fit(table[table["n"] != 10]) is None  # two sizes say nothing of a third


def test_settings_that_few_units_ran_are_left_out():
    rows = rows_of({10: 4})
    rows.loc[(rows["split"] == 1) & (rows["layers"] == 4), "layers"] = 0
    assert set(measured(rows)["layers"]) == {3, 5, 6, 7}


def test_a_setting_is_measured_by_runs_that_differ_in_nothing_else():
    """Gradual unfreezing and another rate have the four factors of the commonly used protocol, and are no such runs."""
    rows = rows_of({10: 4, 40: 5}).assign(unfreeze_every=0, l2_sp=0.0, **{"lr.high": 0.01})
    others = [rows.iloc[:9].assign(**{key: 1.0, "val_top1": 0.9}) for key in ("unfreeze_every", "l2_sp", "lr.high")]
    mixed = pd.concat([*others, rows], ignore_index=True)
    pd.testing.assert_frame_equal(measured(mixed), measured(rows))
    pd.testing.assert_frame_equal(regrets(mixed), regrets(rows))


def test_rows_of_a_search_may_differ_in_the_rates_that_it_samples(composed):
    rows = rows_of({10: 4, 40: 5, 640: 7}).assign(l2_sp=0.0)
    rates = [0.001 + 0.0001 * place for place in range(len(rows))]
    sampled = rows.assign(**{"lr.high": rates, "lr.low": rates})
    more = sampled.iloc[:9].assign(l2_sp=0.1, val_top1=0.9)
    found = space.starts(lambda cells: composed(*cells), ["n_per_class=160"], 160, pd.concat([more, sampled]))
    assert (found["own_rows"]["layers"], found["predicted"]["layers"]) == (5, 6)


def test_a_search_begins_with_what_own_rows_say(composed):
    rows = rows_of({10: 4, 40: 5, 640: 7})
    found = space.starts(lambda cells: composed(*cells), ["n_per_class=160"], 160, rows)
    assert (found["own_rows"]["layers"], found["predicted"]["layers"]) == (5, 6)
    other = space.starts(lambda cells: composed(*cells), ["n_per_class=160"], 160, rows.assign(model="vgg16"))
    assert not {"own_rows", "predicted"} & set(other)


def test_what_the_held_out_images_say_begins_no_search(cfg, tmp_path, monkeypatch):
    config = cfg("test_per_class=0", f"results_dir={tmp_path}")
    factors = {"dataset.fingerprint": config.dataset.fingerprint, "test_per_class": 0, "fold": 0.0}
    factors |= {"dataset.val_per_class": config.dataset.val_per_class, "dataset.val_from_train": False}
    rows = pd.DataFrame([factors | {"n_per_class": "4"}])
    for change, kept in (
        ({}, 1),
        ({"n_per_class": "full"}, 1),
        ({"fold": math.nan}, 0),  # measured on the validation images
        ({"dataset.fingerprint": "0123456789abcdef"}, 0),  # perhaps the same images and one more
        ({"test_per_class": 2}, 0),
        ({"dataset.val_per_class": 7}, 0),
    ):
        monkeypatch.setattr(recommendation, "load", lambda folder, change=change: rows.assign(**change))
        found = recommendation._rows(config)
        assert (0 if found is None else len(found)) == kept, change
        if kept:  # the classes have twelve training images each
            assert found["n_per_class"].tolist() == ["12" if change else "4"]
    for absent in factors:  # where no run of the folder has it
        monkeypatch.setattr(recommendation, "load", lambda folder, absent=absent: rows.drop(columns=absent))
        assert recommendation._rows(config) is None, absent


GIVEN = [
    *("layers=1", "layers=3", "layers=all", "freeze=5", "freeze=0", "high_lr_layers=1", "lr.high=0.001"),
    *("++layers=3", "schedule=step_all"),
]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("given", GIVEN)
def test_every_setting_of_a_search_is_legal_and_has_what_the_user_gave(search, composed, given, sampler):
    one, land = search("300s", given, sampler=sampler)
    one.run(25)
    settings = [json.dumps(tried.setting) for tried in one.tried]
    assert len(settings) == len(set(settings)) > 4
    assert all(given in cell for cell in land.cells)
    key, value = given.lstrip("+").split("=")
    for tried in one.tried:
        found = composed(*one.overrides, *(f"{key}={value}" for key, value in tried.setting.items()))
        assert value == "all" or found == composed(*one.overrides, *typed(tried.setting), f"{key}={value}")


def test_searches_of_other_images_share_nothing(search, make_shapes, tmp_path):
    roots = [make_shapes(tmp_path / name) for name in ("cats", "dogs")]
    (roots[1] / "train" / "ant" / "000.png").unlink()
    tasks = [["dataset=folder", f"dataset.root={root}", "base=trained", "n_per_class=4"] for root in roots]
    one, other = (search("60s", *task)[0] for task in tasks)
    one.run(4)
    assert other.folder != one.folder
    assert (other.starts, other.ended, other.spent) == ({}, 0, 0)
    (roots[0] / "train" / "ant" / "001.png").unlink()
    forget()
    assert search("60s", *tasks[0])[0].folder not in (one.folder, other.folder)


@pytest.mark.parametrize(
    ("column", "line"),
    [("dataset.fingerprint", "dataset.root=.*cats"), ("base.digest", "base.weights=.*w.safetensors")],
)
def test_images_or_weights_that_change_during_a_search_end_it(search, make_shapes, tmp_path, column, line):
    class Changed(Landscape):
        def __call__(self, cells):
            changed = "0123456789abcdef" if len(self.cells) > 10 else one.files[column]
            return [row | {column: changed} for row in super().__call__(cells)]

    weights = tmp_path / "w.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, weights)
    task = ["dataset=folder", f"dataset.root={make_shapes(tmp_path / 'cats')}", "n_per_class=4", "classes=all"]
    one, land = search("400s", *task, "base=weights", f"base.weights={weights}", landscape=Changed())
    with pytest.raises(ConfigError, match=f"^{line}: changed during the search; the same command begins a new search"):
        one.run(4)
    assert len(land.cells) > 10


@pytest.mark.parametrize(
    "images", [11, 14]
)  # of three classes: 33 in all, or 33 of 42 in a fold, which no batch of 32 fits
def test_what_a_fold_or_the_comparison_could_not_train_is_refused_before_the_search(
    composed, make_shapes, tmp_path, images
):
    root = make_shapes(tmp_path / "tree", train=images)
    task = ["dataset=folder", f"dataset.root={root}", "classes=groups", "classes.source=[dog,eel]", "base=trained"]
    task += ["classes.target=[ant,bee,cat]", "model=densenet_bc", "batch_size=32", "base.batch_size=8"]
    line = "batch_size=32: leaves one of the 33 training images for the last batch"
    with pytest.raises(ConfigError, match=f"^{line}"):
        recommend(task, composing(composed), Options(budget="1s", sampler="tpe"))  # a launcher that executes nothing


def test_a_search_is_known_by_what_the_place_of_execution_decides(composed, make_shapes, tmp_path):
    def on_nodes(config):
        raise ConfigError("precision", config.precision, "as the nodes have it")

    launcher = SimpleNamespace(composed=lambda cells: composed(*cells), resolved=on_nodes)
    task = ["dataset=folder", f"dataset.root={make_shapes(tmp_path / 'tree')}", "base=trained"]
    with pytest.raises(ConfigError, match=r"^precision=auto: as the nodes have it"):
        recommend(task, launcher, Options(budget="1s", sampler="tpe"))


def test_a_searched_factor_in_the_file_that_the_user_begins_with_is_refused(composed):
    own = OwnFile(("-cn", "mine"), frozenset({"layers", "n_per_class"}))
    line = "layers=6: is searched, and stands in the file of -cn mine; give it as an override instead"
    with pytest.raises(ConfigError, match=f"^{line}"):
        task_of(["base=trained"], composing(composed), own)
    assert "n_per_class=full" not in task_of(["base=trained", "layers=6"], composing(composed), own)


def test_regrets_are_those_of_settings_chosen_without_the_size():
    rows = rows_of({10: 4, 40: 5, 160: 6, 640: 7})
    found = regrets(rows).pivot_table("regret", "n", "way")
    assert found.loc[40, "regression"] == pytest.approx(0, abs=1e-9)
    assert found.loc[40, "nearest size"] == pytest.approx(1)  # of 10: one layer less, a point less
    assert "Table 2" not in found  # was not measured


def test_ways_are_compared_at_the_sizes_that_both_have(monkeypatch, capsys):
    """The nearest size is a point better at each size where both choose; it alone has n=40, where it is 30 worse."""
    lines = [("nearest size", 10, 1.0), ("regression", 10, 2.0), ("nearest size", 40, 30.0)]
    found = [
        {"way": way, "n": n, "regret": lost + unit, "unit": str(unit), "setting": ""}
        for way, n, lost in lines
        for unit in range(2)
    ]
    monkeypatch.setattr(unseen_n, "load", lambda table: pd.DataFrame({"base": ["trained"], "layers": [1]}))
    monkeypatch.setattr(unseen_n, "alike", lambda rows: rows, raising=False)
    monkeypatch.setattr(unseen_n, "regrets", lambda rows, value: pd.DataFrame(found))
    monkeypatch.setattr("sys.argv", ["unseen_n", "table.csv"])
    unseen_n.main()
    said = capsys.readouterr().out
    assert "regression is better than nearest size by -1.00" in said
    assert [line.split()[-1] for line in said.splitlines() if line.startswith(("regression ", "nearest "))][:2] == [
        *("2.5", "1.5")  # of n=10, which both have
    ]


def test_an_interval_of_one_network_is_that_of_its_images():
    values = np.array([[1.0, 0, 1, 1, 0, 1, 1, 1]])
    found = Interval.of(values)
    half = stats.t.ppf(0.975, 7) * values.std(ddof=1) / math.sqrt(8)
    assert (found.mean, found.low, found.high) == pytest.approx((0.75, 0.75 - half, 0.75 + half))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.98, 1.0])
@pytest.mark.parametrize("images", [20, 200])
def test_intervals_of_accuracies_cover_them(share, images):
    """Those of networks that are nearly always right, too, of which often none of the images is wrong."""
    draw, inside, trials = np.random.default_rng(0), 0, 1000
    for _ in range(trials):
        found = Interval.of_accuracy((draw.random((1, images)) < share).astype(float))
        inside += found.low <= share <= found.high
        assert 0 <= found.low <= found.mean <= found.high <= 1
    assert inside / trials >= 0.94


@pytest.mark.parametrize(("better", "worse"), [(0.0, 0.0), (0.01, 0.0), (0.05, 0.02), (0.3, 0.1)])
def test_intervals_of_differences_cover_them(better, worse):
    draw, inside, trials = np.random.default_rng(0), 0, 1000
    for _ in range(trials):
        chance = draw.random((1, 60))
        found = Interval.of_difference((chance < better).astype(float) - (chance > 1 - worse))
        inside += found.low <= better - worse <= found.high
    assert inside / trials >= 0.94


def test_an_interval_is_no_wider_than_what_is_possible_and_never_a_point():
    every = Interval.of_accuracy(np.ones((3, 40)))
    assert (every.mean, every.high) == (1, 1)
    assert 0.88 < every.low < 0.93  # Clopper & Pearson: 0.912
    few = Interval.of_accuracy(np.array([[1.0, 0.0]] * 3))
    assert 0 <= few.low < 0.2 < 0.8 < few.high <= 1
    equal = Interval.of_difference(np.zeros((3, 40)))
    assert -0.06 < equal.low < 0 < equal.high < 0.06


def test_intervals_cover_the_truth():
    """Of differences with an effect of the seed, of the image, and of both: 95% of the intervals have the true mean."""
    draw, inside, trials = np.random.default_rng(0), 0, 1000
    for _ in range(trials):
        seeds, images = draw.normal(0, 0.03, (3, 1)), draw.normal(0, 0.4, (1, 200))
        found = Interval.of(0.1 + seeds + images + draw.normal(0, 0.2, (3, 200)))
        inside += found.low <= 0.1 <= found.high
    assert 0.94 <= inside / trials <= 0.99


def test_networks_are_compared_on_the_same_images():
    hard = np.array([0.0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
    better = np.maximum(hard, np.eye(10)[0])
    found = compared({"a": np.stack([better, better]), "b": np.stack([hard, hard])}, "a")
    assert found["a"][0].mean == pytest.approx(0.8)
    assert found["b"][1].mean == pytest.approx(0.1)
    assert found["a"][1].mean == 0


def test_the_held_out_images_of_a_rare_class_count_more_where_classes_have_weights(tmp_path):
    run = Files(tmp_path, "a")
    run.predictions.parent.mkdir(parents=True)
    table = pd.DataFrame({"image": range(5), "part": "val", "class": ["x"] * 4 + ["y"], "predicted": ["x"] * 5})
    table.to_parquet(run.predictions)
    assert correct([run]).mean() == pytest.approx(0.8)
    assert correct([run], balanced=True).mean() == pytest.approx((4 / 4 + 0 / 1) / 2)


HOW_SURE = [
    ("recommended", (0.0, 0.0), "scratch itself"),
    ("other", (0.01, 0.03), "better than scratch"),
    ("other", (-0.03, -0.01), "worse than scratch: take that"),
    ("other", (-0.01, 0.03), "not told apart from scratch by 1,200 images"),
]


@pytest.mark.parametrize(("of", "bounds", "words"), HOW_SURE)
def test_how_sure_a_recommendation_is(tmp_path, of, bounds, words):
    gain = Interval(sum(bounds) / 2, *bounds)
    found = Recommendation(
        setting={}, command="", tried=4, images=1200, seconds=1.0, compared={"scratch": (gain, gain)}, run="",
        weights=tmp_path, same=("scratch",) if of == "recommended" else (),
    )  # fmt: skip
    assert found.sure() == words


def test_baselines_of_the_same_verdict_are_said_together(tmp_path):
    gain, equal = Interval(0.02, 0.01, 0.03), Interval(0.0, -0.01, 0.01)
    gains = {"recommended": equal, "commonly_used": equal, "linear_probe": gain, "scratch": equal}
    found = Recommendation(
        setting={}, command="", tried=4, images=50, seconds=1.0, run="", weights=tmp_path,
        compared={name: (gain, gain_of) for name, gain_of in gains.items()},
    )  # fmt: skip
    assert found.sure() == "not told apart from commonly_used and scratch by 50 images; better than linear_probe"


@pytest.mark.parametrize(("parts", "expected"), [(["val"], [1, 0]), (["val", "test"], [0, 1])])
def test_held_out_images_are_test_images_where_there_are_some(tmp_path, parts, expected):
    right = {"val": [True, False], "test": [False, True]}
    lines = [
        {"part": part, "image": f"{n}.png", "class": "ant", "predicted": "ant" if right[part][n] else "bee"}
        for part in parts
        for n in (0, 1)
    ]
    run = Files(tmp_path, "abc")
    run.folder.mkdir(parents=True)
    pd.DataFrame(lines).to_parquet(run.predictions)
    assert correct([run]).tolist() == [expected]
    other = Files(tmp_path, "def")
    other.folder.mkdir(parents=True)
    pd.DataFrame(lines).assign(image="x.png").to_parquet(other.predictions)
    with pytest.raises(ValueError, match="different images"):
        correct([run, other])


def composing(composed) -> Any:
    """A launcher that executes nothing."""
    return SimpleNamespace(composed=lambda cells: composed(*cells), resolved=resolved)


@pytest.mark.parametrize("text", ["fold=1", "protocol=scratch", "seed=3"])
def test_what_the_search_chooses_cannot_be_given(composed, text):
    launcher = composing(composed)
    with pytest.raises(ConfigError, match=f"^{text}: is chosen by the search; leave it out"):
        recommend([text], launcher, Options(budget="1s", sampler="tpe"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["base=none", "layers=0"], "base=none: has nothing to recommend"),
        (["dataset=folder", "dataset.root=."], "base=trained: would be trained on one half of your classes"),
        (
            ["layers=6", "freeze=0", "high_lr_layers=1", "decay_epochs=1", "lr.high=0.1", "lr.low=0.1"],
            "command line=.* leaves nothing to search",
        ),
    ],
)
def test_tasks_without_a_recommendation(composed, arguments, line):
    with pytest.raises(ConfigError, match=f"^{line}"):
        recommend(arguments, composing(composed), Options(budget="1s", sampler="tpe"))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_budgets(text, seconds):
    assert Options(budget=text, sampler="tpe").seconds == seconds


@pytest.mark.parametrize("text", ["soon", "45", "0m", "-5m", "10 m", "1h30m"])
def test_what_is_no_budget(text):
    with pytest.raises(ConfigError, match=f"^budget={text}: must be a time, as in 90s, 10m or 2h"):
        _ = Options(budget=text, sampler="tpe").seconds


def test_all_classes_are_learned_from_a_base_of_other_images(composed):
    launcher = composing(composed)
    found = task_of(["base=weights", "base.weights=x"], launcher, OwnFile())
    assert {"classes=all", "sweep=recommend", "n_per_class=full"} <= set(found)
    given = ["base=trained", "sweep=mine", "++n_per_class=10"]
    assert task_of(given, launcher, OwnFile()) == [*given, "base.seed=0"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("n_per_class=10,25", "n_per_class=10,25: must be one value"),
        ("sampler=grid", "hydra.sweeper.sampler=grid: must be one of tpe, random"),
        ("hydra/launcher=basic", "hydra/launcher=basic: must be local, slurm or ray"),
    ],
)
def test_what_cannot_be_recommended_is_said_in_one_line(command, arguments, line):
    ended = command(*arguments.split(), module="tlprotocols.recommend")
    assert ended.returncode == 2, ended
    assert re.match(line, ended.stderr), ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_recommendation_from_images_to_a_network_that_predicts(tiny, shapes, command, tmp_path):
    results = tmp_path / "results"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pets.yaml").write_text("defaults: [config, _self_]\nmomentum: 0.8\n")
    task = [text for text in tiny if not text.startswith("n_per_class")]
    line = ["-cd", str(tmp_path / "mine"), "-cn", "pets", *task, "base=trained", f"results_dir={results}", "budget=1s"]
    ended = command(*line, module="tlprotocols.recommend", timeout=600)
    assert (ended.returncode, ended.stderr) == (0, "")
    (state,) = results.glob("recommend/*/recommendation.json")
    found = json.loads(state.read_text())
    assert set(found["compared"]) == {"recommended", "commonly_used", "linear_probe", "scratch"}
    assert found["images"] == 4 * 4
    assert (state.parent / "figure.png").exists()

    rows = load_rows(results, sweep="recommend")
    whole = rows[rows["fold"].isna()]
    assert set(whole["train_images"]) == {4 * 12}
    assert set(rows[rows["fold"].notna()]["test_images"]) == {4 * 4}
    chosen = rows[rows["run_id"] == found["run"]].iloc[0]
    assert all(chosen[key] == value for key, value in found["setting"].items())
    assert found["same"] == [name for name in space.BASELINES if name == chosen["protocol"]]
    seeds = whole[[all(row[key] == value for key, value in found["setting"].items()) for _, row in whole.iterrows()]]
    assert found["compared"]["recommended"]["accuracy"]["mean"] == pytest.approx(seeds["val_top1"].mean())

    (train,) = re.findall(r"train it: +python -m tlprotocols (.*)", ended.stdout)
    planned = command(*shlex.split(train), "hydra.launcher.dry_run=true").stdout
    assert "finished=1 running=0 failed=0 to_run=0" in planned  # it is the network that was compared

    again = command(*line, module="tlprotocols.recommend", timeout=600)
    assert again.returncode == 0
    assert "to run" not in again.stdout  # the same command trains nothing
    assert again.stdout.splitlines()[-1] == ended.stdout.splitlines()[-1]

    classes = sorted(path.name for path in (shapes / "val").iterdir())
    images = sorted((shapes / "val").glob("*/*.png"))
    guessed = command(found["run"], *map(str, images), "--results", str(results), module="tlprotocols.predict")
    assert guessed.returncode == 0, guessed.stderr
    first = [text.split("  ")[1].split()[0] for text in guessed.stdout.splitlines()]
    targets = {
        name for name in classes if name in json.loads(Files(results, found["run"]).classes.read_text())["target"]
    }
    right = [
        image.parent.name == name for image, name in zip(images, first, strict=True) if image.parent.name in targets
    ]
    assert sum(right) / len(right) == pytest.approx(chosen["val_top1"])
