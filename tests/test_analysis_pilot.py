"""The pilot's choice of a recipe: the one whose training losses are nearest to Table 1's."""

import pandas as pd
import pytest

from analysis.plested2019 import pilot


def test_table_1_has_twelve_training_losses():
    losses = pilot.table1_losses()
    assert len(losses) == 12
    assert losses[(10, 4)] == 1.55
    assert losses[(25, 4)] == 1.22


def test_the_nearest_recipe_comes_first():
    paper = pilot.table1_losses()
    parts = []
    for name, away in (("none", -1.0), ("crop", 0.25), ("flip", 2.0)):
        part = (paper + away).rename("train_loss").reset_index()
        parts.append(part.assign(augment=name, dropout=0.5, weight_decay=0.1))
    rows = pd.concat(parts)
    found = pilot.distances(rows)
    assert found["augment"].tolist() == ["crop", "none", "flip"]
    assert found["distance"].tolist() == pytest.approx([0.25, 1.0, 2.0])
    assert found["difference"].tolist() == pytest.approx([0.25, -1.0, 2.0])
    assert found["cells"].tolist() == [12] * 3
