import math

import pytest

from imagegen_dist.metrics.formatting import count, duration, figure, words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (153_600, "153.6k"),
        (400_000, "400k"),
        (1_250_000, "1.25M"),
        (250e6, "250M"),
        (2e9, "2G"),
    ],
)
def test_counts_are_short(number, text):
    assert count(number) == text


def test_a_count_can_take_the_unit_of_another():
    assert count(6400, unit_of=250e6) == "0.01M"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (200, "3:20"), (3599.7, "1:00 h"), (7260, "2:01 h"), (200_000, "2 d 7 h"), (math.inf, "–")],
)
def test_durations_read_as_a_clock(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.69312, "0.6931"), (1.234, "1.234"), (12.346, "12.35"), (-312.34, "-312.3"), (1234.2, "1,234")],
        *[(0.0, "0.0000"), (2.5e-7, "2.50e-07"), (math.nan, "nan")],
    ],
)
def test_figures_have_about_four_digits(value, text):
    assert figure(value) == text


def test_names_read_as_words():
    assert words("system/images_per_s") == "images/s"
    assert words("eval/label_agreement") == "label agreement"
