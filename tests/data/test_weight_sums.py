"""Sums of weights, rows at points of the cumulative weight, and checks of blocks."""

import numpy as np
import pytest

from fastgmm.data.block_checks import check_values, check_weight_array, check_weight_count
from fastgmm.data.weight_sums import CumulativeWeights, WeightTotals

WEIGHTS = np.array([0.0, 0.0, 0.5, 2.0, 0.0, 1.5, 4.0, 0.0])


def test_totals_of_weights():
    totals = WeightTotals.of(8, WEIGHTS)
    assert totals[:4] == (8, 4, 8.0, 4.0)
    assert totals.effective_rows == pytest.approx(WEIGHTS.sum() ** 2 / (WEIGHTS**2).sum(), rel=1e-15)
    assert WeightTotals.of(8, None) == (8, 8, 8.0, 0.0, 0.0, 0.0)
    assert WeightTotals.of(8, None).effective_rows == 8.0
    assert WeightTotals.of(8, np.full(8, 0.3)).effective_rows == pytest.approx(8, rel=1e-15)


@pytest.mark.parametrize("factor", [1.0, 1e-200, 1e200])
@pytest.mark.parametrize("cut", [1, 2, 4, 7])
def test_totals_add_over_blocks(cut, factor):
    weights = factor * WEIGHTS
    expected = WeightTotals.of(8, weights)
    parts = [WeightTotals.of(len(w), w) for w in (weights[:cut], weights[cut:])]
    with_one_scale = WeightTotals().plus(WeightTotals.of(cut, weights[:cut]))
    with_one_scale = with_one_scale.plus(WeightTotals.of(8 - cut, weights[cut:], with_one_scale.scale))
    rescaled = parts[0].rescaled(expected.scale).plus(parts[1].rescaled(expected.scale))
    for totals in (with_one_scale, rescaled):
        assert totals[:2] == expected[:2]
        assert totals.total_weight == pytest.approx(expected.total_weight, rel=1e-15)
        assert totals.effective_rows == pytest.approx(expected.effective_rows, rel=1e-14)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_rows_at_points_do_not_depend_on_the_blocks(weights):
    whole = CumulativeWeights(8, weights)
    assert whole.total == 8.0
    points = np.linspace(0, 8, 65)[:-1]
    found = whole.rows_at(points)
    if weights is None:
        np.testing.assert_array_equal(found, points.astype(int))
    else:
        assert set(found) == {2, 3, 5, 6}
        np.testing.assert_array_equal(np.bincount(found, minlength=8) / 8, weights)
    before, rows = 0.0, []
    for first in (0, 3, 6):
        part = slice(first, min(first + 3, 8))
        block = CumulativeWeights(part.stop - first, None if weights is None else weights[part], before)
        here = points[(points >= before) & (points < block.total)]
        rows.extend(first + block.rows_at(here))
        before = block.total
    np.testing.assert_array_equal(rows, found)


def test_points_at_the_end_are_in_the_last_row_with_weight():
    assert CumulativeWeights(8, WEIGHTS).rows_at(np.array([8.0, 9.0])).tolist() == [6, 6]
    assert CumulativeWeights(8, None).rows_at(np.array([8.0])).tolist() == [7]
    assert CumulativeWeights(3, np.zeros(3)).last == 0


def test_checks_of_values():
    def where(row):
        return f"line {row + 2}"

    X, weights = np.ones((3, 2)), np.ones(3)
    check_values(X, weights, where)
    check_values(X[:0], weights[:0], where)
    check_values(np.full((3, 2), 1e308), np.full(3, 1e308), where)  # only their sums overflow
    for value, message in (
        (np.nan, "NaN, in line 3, column 'b'.* Missing"),
        (np.inf, "infinity .* float64, in line 3"),
    ):
        X[1, 1] = value
        with pytest.raises(ValueError, match=message):
            check_values(X, weights, where, ["a", "b"])
    for value in (-1.0, np.nan, np.inf):
        weights[2] = value
        with pytest.raises(ValueError, match=f"must be finite and not negative, got {value} in line 4"):
            check_values(np.ones((3, 2)), weights, where)


def test_checks_of_the_shape_of_weights():
    check_weight_array(np.ones(3), np.dtype(float), 3)
    check_weight_array(np.ones(3, bool), np.dtype(bool), None)
    for weights, n_samples, message in (
        (np.ones(3), 4, r"4 numbers, one for each row, got float64 of shape \(3,\)"),
        (np.ones((3, 1)), None, r"one number for each row, got float64 of shape \(3, 1\)"),
        (np.ones(3, complex), 3, "got complex128"),
    ):
        with pytest.raises(ValueError, match=message):
            check_weight_array(weights, weights.dtype, n_samples)
    check_weight_count(3, 3)
    with pytest.raises(ValueError, match="a block of 4 rows must have 4 weights, got 3"):
        check_weight_count(3, 4)
