import math

import pytest

from imagegen_dist.metrics.formatting import count, duration, figure, figure_lines, value_text


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


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("eval/label_agreement", 0.9761, "97.6%"),
        ("eval/modes", 998.0, "998"),
        ("eval/modes", math.inf, "inf"),
        ("eval/frechet", 12.346, "12.35"),
        ("loss/unknown", 0.5, "0.5000"),
    ],
)
def test_a_value_is_written_as_its_metric_is_registered(name, value, text):
    assert value_text(name, value) == text


def test_lines_are_in_the_order_of_the_table_with_units_directions_and_references():
    values = {"eval/elbo": -111.94, "eval/frechet_real": 2.149, "eval/own": 7.5, "eval/frechet": 4.645}
    assert [(line.label, line.full_value, line.direction) for line in figure_lines(values)] == [
        ("Fréchet distance", "4.645 (held-out real samples: 2.149)", "lower is better"),
        ("ELBO", "-111.9 nats per sample", "higher is better"),
        ("own", "7.500", ""),
    ]


def test_a_reference_alone_has_a_line_of_its_own():
    [line] = figure_lines({"eval/frechet_real": 2.149})
    assert (line.label, line.full_value) == ("Fréchet distance of held-out real samples", "2.149")


def test_a_large_family_is_one_line():
    levels = {f"eval/rate_level_{level}": 3.5 for level in range(2)}
    latents = {f"eval/rate_of_latent/{latent:03}": float(latent) for latent in range(40)}
    others = {f"eval/dci/{latent}": float(latent) for latent in range(13)}
    assert [(line.label, line.full_value) for line in figure_lines(levels | latents | others)] == [
        ("rate of level 0", "3.500 nats per sample"),
        ("rate of level 1", "3.500 nats per sample"),
        ("rate of latent", "0.0000 to 39.00 nats per sample (40 values)"),
        ("dci", "0.0000 to 12.00 (13 values)"),
    ]
