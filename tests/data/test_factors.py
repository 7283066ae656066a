import numpy as np
import pytest

from imagegen_dist.data.factors import choose_factors, factor_table
from imagegen_dist.data.index import DatasetError


def test_columns_are_in_the_order_of_the_first_record():
    names, table = factor_table([{"factors": {"shape": 1, "x": 7}}, {"factors": {"x": 3, "shape": 0}, "label": 2}])
    assert names == ["shape", "x"]
    assert np.array_equal(table, [[1, 7], [0, 3]])


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"shape": 1}, "sample 1 has the factors shape; the first one has shape, x"),
        ({"shape": 1, "x": 0, "y": 0}, "sample 1 has the factors shape, x, y; the first one has shape, x"),
        ({}, "sample 1 has the factors none"),
        ({"shape": "heart", "x": 0}, "sample 1 has shape 'heart'; a factor is the number of its value"),
    ],
)
def test_records_of_other_factors_are_refused_in_one_line(second, said):
    with pytest.raises(DatasetError, match=said):
        factor_table([{"factors": {"shape": 1, "x": 7}}, {"factors": second}])


def test_factors_are_chosen_in_the_order_asked_for():
    assert choose_factors(["shape", "scale", "x"], ("x", "shape"), "there") == [2, 0]
    assert choose_factors(["shape", "x"], (), "there") == [0, 1]


@pytest.mark.parametrize(("names", "said"), [(["shape", "x"], "have shape, x"), ([], "carry none")])
def test_a_factor_that_the_samples_do_not_have_is_refused_with_those_that_they_have(names, said):
    with pytest.raises(DatasetError, match=f"there is no factor 'colour': the samples of there {said}"):
        choose_factors(names, ("colour",), "there")
