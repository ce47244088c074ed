"""The hybrid study: its variants by their factors, its printed numbers, and claims on rows where they hold and not."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import report
from analysis.contrasts import decide
from analysis.frame import Missing
from analysis.hybrid_densenet import STUDY, variants
from analysis.hybrid_densenet.contrasts import family
from analysis.studies import STUDIES
from analysis.verdicts import evaluate
from tlprotocols.results import load

FLAGS = {  # drop_channel, se, checkpoint, dropout
    "Vanilla": ("none", False, False, 0.2),
    "A": ("before_bn", False, False, 0.2),
    "B": ("none", True, False, 0.2),
    "A+B": ("before_bn", True, False, 0.2),
    "A+B+C": ("before_bn", True, True, 0.2),
    "no dropout": ("none", False, False, 0.0),
}
TRUE = {"Vanilla": 72.7, "A": 74.3, "B": 73.5, "A+B": 75.0, "A+B+C": 75.0, "no dropout": 76.0}
GAPS = {"Vanilla": 1.0, "A": 0.7, "B": 0.8, "A+B": 0.5, "A+B+C": 0.5, "no dropout": 1.5}
SIGNS = ("each_helps", "both_are_better_than_one", "both_help", "vanilla_overfits", "checkpointing_costs_time")


def table(accuracy=TRUE, gaps=GAPS, halves=0.43, slower=0.8, seeds=6, **more):
    """Rows as a sweep writes them."""
    rows: list[dict[str, object]] = []
    for seed in range(seeds):
        draw = np.random.RandomState(seed)
        for name, (drop, se, checkpoint, dropout) in FLAGS.items():
            top1 = (accuracy[name] + (0 if name.startswith("A+B") else draw.normal(0, 0.05))) / 100
            row = {"run_id": f"{len(rows):016x}", "model": "densenet_bc", "dataset": "cifar100", "layers": 0}
            row |= {"n_per_class": "full", "seed": seed, "split": 0, "target": "B", "base": "none", "dropout": dropout}
            row |= {"model.drop_channel": drop, "model.se": se, "model.checkpoint": checkpoint}
            row |= {"test_top1": top1, "val_top1": top1, "val_top1_at_least_val_loss": top1}
            row |= {variants.LEAST: top1, variants.BEST: top1 + 0.02 + draw.normal(0, 0.0005)}
            row |= {"epoch_at_least_val_loss": 151, "epoch_at_best_val_top1": 290, "train_loss": 1.0}
            row |= {"train_eval_loss": 0.5, "val_loss": 0.5 + gaps[name] + draw.normal(0, 0.01)}
            row |= {"peak_memory_mb": 1000 * (halves if checkpoint else 1)}
            row |= {"images_per_second": 100 * (slower if checkpoint else 1) + draw.normal(0, 0.5)}
            rows.append(row | {"seconds": 1.0} | more)
    return pd.DataFrame(rows)


def verdicts(rows):
    return dict(evaluate(STUDY.claims, STUDY.rows(rows)).set_index("claim")["verdict"])


def test_every_variant_is_known_by_its_factors():
    assert list(variants.wide(STUDY.rows(table()))) == list(FLAGS) == list(variants.ORDER)


def test_printed_numbers_are_those_of_the_two_tables():
    accuracy = variants.printed("test accuracy", "CIFAR-100")
    assert dict(accuracy) == {"Vanilla": 72.68, "A": 74.34, "B": 73.48, "A+B": 74.97, "A+B+C": 74.14}
    assert list(variants.printed("peak memory", "Tiny ImageNet")) == [1200, 1114, 1230, 2144, 505]
    assert list(variants.printed(variants.TIME, "CIFAR-100")) == [498, 600, 516, 635, 806]
    effects = {dataset: [c.paper for c in family(table(dataset=dataset))] for dataset in ("cifar100", "tiny_imagenet")}
    assert effects["cifar100"] == [1.66, 0.8, 2.29, 0.63, 0.86, None, None, None, 5.05]
    assert effects["tiny_imagenet"][:5] == [1.66, 1.57, 2.31, 0.65, 0.09]


def test_claims_are_supported_where_they_hold():
    assert set(verdicts(table()).values()) == {"supported", "true"}


def test_claims_are_contradicted_where_the_opposite_holds():
    backwards = {name: 150 - value for name, value in TRUE.items()}
    gaps = {name: 2 - value for name, value in GAPS.items()}
    found = verdicts(table(backwards, gaps, halves=0.9, slower=1.2))
    assert {found[name] for name in SIGNS} == {"contradicted"}
    assert found["checkpointing_halves_memory"] == "false"
    other = {**TRUE, "A+B+C": 74.14}
    assert verdicts(table(other))["checkpointing_changes_no_result"] == "false"


def test_claims_are_undecided_where_nothing_differs():
    same, gaps = dict.fromkeys(TRUE, 70.0), dict.fromkeys(GAPS, 1.0)
    found = verdicts(table(same, gaps, slower=1.0))
    assert {found[name] for name in SIGNS} == {"undecided"}


def test_the_five_points_below_the_densenet_paper_are_taken_apart():
    """Dropout costs 3.3 points here, the choice of the epoch 2, both 5.3."""
    found = decide(family(STUDY.rows(table())), STUDY.rows(table())).set_index("contrast")
    effects = found["effect"][["dropout costs", "least loss costs", "both cost"]]
    assert list(effects) == pytest.approx([3.3, 2.0, 5.3], abs=0.1)
    assert set(found["verdict"]) == {"supported"}


def test_variants_that_are_missing_leave_the_rest():
    rows = table().query("`model.se` == False and dropout > 0")
    found = verdicts(rows)
    assert set(found.values()) == {"undecided"}
    shown = report.collect(rows, (STUDY,)).parts[0].tables["variants"]
    assert list(shown["variant"]) == ["Vanilla", "A"]


def test_rows_without_the_texts_choice_of_the_epoch_say_what_is_missing():
    with pytest.raises(Missing, match="curve=true"):
        variants.named(STUDY.rows(table().drop(columns=[variants.LEAST])))


def test_the_table_has_the_printed_numbers_beside_ours():
    shown = report.collect(table(), (STUDY,)).parts[0].tables["variants"].set_index("variant")
    assert shown.loc["A+B+C", "memory_ratio"] == pytest.approx(0.43)
    assert shown.loc["A+B+C", "printed_cifar100_memory_mb"] == 505
    assert shown.loc["A", "printed_tiny_imagenet_accuracy"] == 53.74
    assert shown.loc["A+B+C", "time_ratio"] == pytest.approx(1.25, abs=0.02)


def test_the_report_of_a_table_with_other_studies_rows(tmp_path: Path):
    written = report.write(report.collect(table(), (STUDY,)), tmp_path)
    names = {path.name for path in written}
    assert {"hybrid_densenet_variants.png", "hybrid_densenet_variants.csv", "hybrid_densenet_contrasts.csv"} <= names
    assert "A+B+C" in (tmp_path / "report.html").read_text()


def test_the_committed_tables_are_those_of_the_committed_rows():
    """And a table without `lr.step`, since no rate falls by it, leaves the figures of other studies out."""
    folder = Path(__file__).parents[1] / "results" / "tiny_hybrid_densenet"
    parts = {part.study.name: part for part in report.collect(load(folder / "rows.csv"), STUDIES).parts}
    for name in ("claims", "contrasts", "variants"):
        committed = pd.read_csv(folder / f"hybrid_densenet_{name}.csv")
        made = pd.read_csv(io.StringIO(parts["hybrid_densenet"].tables[name].to_csv(index=False)))
        pd.testing.assert_frame_equal(made, committed)
    assert "plested2019" not in parts
