import base64
import io
import json
import math
import re
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from imagegen_dist.drawing.animation import animate
from imagegen_dist.metrics.formatting import figure_lines
from imagegen_dist.metrics.report import (
    Picture,
    charts,
    downsample,
    headlines,
    linear_ticks,
    means,
    render_report,
    tick_text,
    trade_off,
)


def page(rows=(), pictures=(), **changes):
    arguments = {
        "title": "digits",
        "facts": [("preset", "digits")],
        "figures": {"eval/frechet": 12.35},
        "rows": rows,
        "pictures": pictures,
        "commands": [("resume", "python jobs/train_gan.py --run digits")],
    }
    return render_report(**arguments | changes)


@cache
def pictures():
    made = []
    for i in range(3):
        buffer = io.BytesIO()
        Image.linear_gradient("L").rotate(90 * i).save(buffer, "PNG")
        made.append(Picture(f"{i}k images", buffer.getvalue(), "png"))
    return made


class Tags(HTMLParser):
    """Collects start tags and checks that each is closed."""

    def __init__(self, text):
        super().__init__()
        self.found, self.stack = [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "link", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def rows(count=300):
    return [
        {
            "images": 64 * i,
            "loss/discriminator": 0.7 - i / 1000,
            "loss/generator": 0.7,
            "system/images_per_s": 5000.0 + i,
        }
        for i in range(1, count)
    ]


def test_the_page_is_well_formed_and_refers_to_nothing_outside():
    text = page(rows(), pictures(), config='{"seed": 0}')
    for tag, attributes in Tags(text).found:
        assert tag not in ("link", "iframe", "object")
        for name in ("src", "href", "data", "action"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+|http-equiv", "", text)


def test_text_of_users_is_escaped():
    evil = "</title><script>alert(1)</script>\"'"
    text = page(
        [{"images": 1, f"loss/{evil}": 1.0, "loss/b": 2.0}],
        [Picture(evil, pictures()[0].data, "png", [evil])],
        title=evil,
        facts=[(evil, evil)],
        figures={f"eval/{evil}": 1.0},
        state=evil,
        commands=[(evil, evil)],
        config=evil,
    )
    assert "<script>alert" not in text
    tags = Tags(text).found
    assert [tag for tag, _ in tags].count("script") == 1
    (plot,) = [attributes for _, attributes in tags if attributes.get("class") == "plot"]
    assert json.loads(plot["data-names"]) == [evil, "b"]
    assert json.loads(plot["data-lines"]) == [[[1.0, "1.000"]], [[1.0, "2.000"]]]


def test_the_last_picture_is_large_and_all_are_in_the_strip():
    shown = pictures()
    images = [attributes for tag, attributes in Tags(page(pictures=shown)).found if tag == "img"]
    assert images[0]["alt"] == "2k images"
    assert images[0]["src"] == images[-1]["src"]
    assert len(images) == 1 + len(shown)


def test_columns_of_a_grid_are_named_and_long_names_stand_upright():
    for names, styles in ((["0", "1"], "columns"), (["aeroplane", "motorcycle"] * 5, "columns upright")):
        tags = Tags(page(pictures=[Picture("grid", pictures()[0].data, "png", names)])).found
        assert [attributes["class"] for tag, attributes in tags if tag == "ol"] == [styles]
        assert [attributes["title"] for tag, attributes in tags if tag == "li"] == names


def test_three_figures_are_large_the_main_one_first():
    values = {"frechet": 4.6, "frechet_real": 2.1, "elbo": -100.0, "rate": 20.0, "psnr": 21.0, "mig": 0.3}
    lines = figure_lines({f"eval/{name}": value for name, value in values.items()})
    assert [line.label for line in headlines(lines, "eval/elbo")] == ["ELBO", "Fréchet distance", "MIG"]
    text = page(figures={"eval/frechet": 4.645, "eval/frechet_real": 2.149, "eval/rate": 20.0})
    assert "held-out real samples: 2.149" in text
    assert "↓ lower is better" in text


def test_infrastructure_is_folded_away():
    text = page(rows())
    folded = text[text.index("<details") :]
    assert "Throughput" in folded
    assert "Losses" not in folded
    assert "Losses" in text


def test_a_single_picture_has_no_strip():
    assert [tag for tag, _ in Tags(page(pictures=pictures()[:1])).found].count("img") == 1


def test_films_play_until_they_are_paused_and_meshes_are_in_the_page():
    frames = [Image.new("L", (8, 8), level) for level in (0, 90, 180)]
    film = Picture("1k images", animate(frames, "webp", 8), "webp")
    mesh = Picture("Surfaces", b"glTF and the rest", "glb")
    text = page(rows(), [*pictures()[:1], film], more_pictures=[film, mesh])
    tags = Tags(text).found
    shown = [attributes for tag, attributes in tags if tag == "img"]
    assert [(each["src"] == film.source, each.get("data-still") == film.still) for each in shown if each["alt"]] == [
        (True, True),
        (True, True),
    ]
    [before, after] = [each for each in shown if not each["alt"]]
    assert (before["src"], "data-of" in before) == (pictures()[0].source, False)
    assert (after["src"], after["data-of"]) == (film.still, film.source)
    with Image.open(io.BytesIO(base64.b64decode(film.still.partition(",")[2]))) as still:
        assert not getattr(still, "is_animated", False)
        assert still.convert("L").getpixel((4, 4)) < 5
    [canvas] = [attributes for tag, attributes in tags if tag == "canvas"]
    assert base64.b64decode(canvas["data-glb"]) == mesh.data
    assert "function drawMesh" in text
    assert text.count('class="films"') == 1
    plain = page(rows(), pictures())
    assert 'class="films"' not in plain
    assert "function drawMesh" not in plain


def test_of_many_large_films_the_oldest_stand_still():
    noise = np.random.default_rng(0).integers(0, 256, (9, 500, 500), dtype=np.uint8)
    film = Picture("film", animate([Image.fromarray(frame) for frame in noise], "webp", 8), "webp")
    assert 1.5e6 < len(film.data) < 2.8e6
    shown = [attributes for tag, attributes in Tags(page(rows(), [film, film, film])).found if tag == "img"]
    assert ["data-of" in each for each in shown if not each["alt"]] == [False, len(film.data) * 2 < 4 << 20, True]


def test_a_picture_of_unknown_type_is_refused():
    with pytest.raises(ValueError, match="'bmp' cannot be shown; allowed: png, jpg"):
        page(pictures=[Picture("x", b"", "bmp")])


def test_a_run_without_rows_or_pictures_has_a_page():
    text = page(facts=[], figures={}, commands=[])
    Tags(text)
    assert "No metrics have been written yet." in text


def test_groups_have_charts_of_their_own_and_evaluation_comes_first():
    made = charts([*rows(), {"images": 640, "eval/frechet": 12.0}])
    assert [chart.title for chart in made] == ["Fréchet distance", "Losses", "Throughput"]
    assert [chart.note for chart in made] == ["lower is better", "", "higher is better, images/s"]
    assert [chart.infrastructure for chart in made] == [False, False, True]
    assert [line.name for line in made[1].lines] == ["discriminator", "generator"]


def test_figures_of_unlike_size_do_not_share_an_axis():
    made = charts(
        [{"images": i, "eval/frechet": 200.0 + i, "eval/label_agreement": 0.9, "eval/copied": 0.8} for i in range(5)]
    )
    assert [[line.name for line in chart.lines] for chart in made] == [["frechet"], ["label agreement", "copied"]]


def test_what_was_zero_all_the_time_is_left_out():
    rows = [{"images": i, "data/bad": 0.0, "data/retries": float(i == 2)} for i in range(3)]
    (chart,) = charts(rows)
    assert [line.name for line in chart.lines] == ["retries"]


def test_a_constant_curve_has_an_axis():
    for value in (3.0, -2.0, 1e-9, 1e12):
        (chart,) = charts([{"images": i, "loss/a": value} for i in range(3)])
        positions = [tick.position for tick in chart.y_ticks]
        assert positions == sorted(positions)
        assert len({tick.text for tick in chart.y_ticks}) == len(positions) >= 2


def test_shares_have_a_chart_apart_from_distances_and_what_was_measured_once_has_none():
    evaluations = [
        {"images": i, "eval/frechet": 9.0 - i, "eval/frechet_real": 2.1, "eval/label_agreement": 0.8 + i / 20}
        for i in range(4)
    ]
    distances, shares = charts([*evaluations, {"images": 4, "eval/authenticity": 0.7, "eval/copying_z": 0.3}])
    assert [line.name for line in distances.lines] == ["frechet", "frechet real"]
    assert [line.name for line in shares.lines] == ["label agreement"]


@pytest.mark.parametrize("size", [1e-4, 0.01, 3.0, 7e5])
@pytest.mark.parametrize("spread", [0.0, 1e-16, 1e-9, 1e-5])
def test_values_that_hardly_change_have_ticks(size, spread):
    ticks = linear_ticks(size * (1 - spread), size)
    texts = [tick_text(tick, ticks, logarithmic=False) for tick in ticks]
    assert len(set(texts)) >= 2 or size > 10_000


def test_a_reference_is_dashed_beside_what_is_compared_with_it_and_left_out_where_it_is_of_another_size():
    close = [{"images": i, "eval/frechet": 4.0 - i, "eval/frechet_real": 2.1} for i in range(3)]
    [shown] = charts(close)
    assert (shown.title, [line.is_reference for line in shown.lines]) == ("Fréchet distance", [False, True])
    far = [{"images": i, "eval/frechet": 400.0 - i, "eval/frechet_real": 2.1} for i in range(3)]
    assert [[line.name for line in chart.lines] for chart in charts(far)] == [["frechet"]]


def test_ticks_are_round_and_lie_on_the_chart():
    (chart,) = charts([{"images": 400_000 * i / 7, "loss/a": 0.31 + 0.1 * i} for i in range(8)])
    assert [tick.text for tick in chart.x_ticks] == ["0", "100k", "200k", "300k", "400k"]
    assert [tick.text for tick in chart.y_ticks] == ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25"]
    assert all(0 <= tick.position <= 100 for tick in (*chart.x_ticks, *chart.y_ticks))


def test_a_positive_curve_over_decades_is_logarithmic():
    (chart,) = charts([{"images": i, "eval/frechet": 1000 / (1 + i**3)} for i in range(10)])
    assert chart.logarithmic
    assert [tick.text for tick in chart.y_ticks] == ["1", "10", "100", "1000"]


def test_a_value_that_is_not_finite_breaks_the_line_and_a_lone_point_is_a_dot():
    values = [1.0, 2.0, math.nan, 3.0, math.inf, 2.0, 1.0] + [1.0] * 60
    (chart,) = charts([{"images": i, "loss/a": value} for i, value in enumerate(values)])
    (line,) = chart.lines
    assert line.path.count("M") == 3
    assert line.dots.count("h0") == 1
    assert line.readings[2][1] == "not finite"


def test_a_curve_that_was_never_finite_has_no_chart():
    assert charts([{"images": 1, "loss/a": math.nan}]) == []


def test_few_points_are_marked_one_by_one():
    (chart,) = charts([{"images": i, "eval/frechet": 5.0 + i} for i in range(4)])
    assert chart.lines[0].dots.count("h0") == 4


def test_long_lines_are_thinned_to_means_over_their_extremes():
    (chart,) = charts([{"images": i, "loss/a": math.sin(i)} for i in range(20_000)])
    (line,) = chart.lines
    assert line.path.count("L") < 100
    assert line.points.count("L") < 500


def test_downsampling_keeps_ends_order_spikes_and_gaps():
    points = [(float(i), math.sin(i / 100)) for i in range(10_000)]
    points[4321] = (4321.0, 50.0)
    points[777] = (777.0, None)
    kept = downsample(points, 500)
    assert len(kept) <= 500
    assert kept == sorted(kept, key=lambda point: point[0])
    assert {points[0], points[-1], points[4321], points[777]} <= set(kept)
    assert downsample(points[:400], 500) == points[:400]


def test_means_are_of_neighbours_and_gap_where_most_are_not_finite():
    points = [(float(i), float(i)) for i in range(10)]
    assert means(points, 5)[0] == (0.5, 0.5)
    assert means([(0.0, None), (1.0, None), (2.0, 4.0), (3.0, None)], 2) == [(0.5, None), (2.5, 4.0)]


def evaluations(*measured):
    return [
        {"images": 1000.0 * (i + 1), "eval/rate": rate, "eval/distortion": distortion}
        for i, (rate, distortion) in enumerate(measured)
    ]


def test_rate_and_distortion_of_every_evaluation_are_points_in_the_order_of_images():
    shown = trade_off([*rows(5), *reversed(evaluations((40.0, 250.0), (10.0, 200.0), (20.0, 150.0)))])
    assert [point.note for point in shown.points] == [
        "1,000 images: rate 40.00, distortion 250.0 nats",
        "2,000 images: rate 10.00, distortion 200.0 nats",
        "3,000 images: rate 20.00, distortion 150.0 nats",
    ]
    # Where a point lies and what the ticks beside it say are the same number.
    for axis, ticks, values in (("x", shown.x_ticks, (40, 10, 20)), ("y", shown.y_ticks, (250, 200, 150))):
        (low, low_text), (high, high_text) = ((ticks[end].position, float(ticks[end].text)) for end in (0, -1))
        for point, value in zip(shown.points, values, strict=True):
            expected = low + (high - low) * (value - low_text) / (high_text - low_text)
            assert getattr(point, axis) == pytest.approx(expected)
    assert shown.path.count("L") == 2


def test_points_that_lie_close_share_a_label_and_the_last_one_is_named():
    shown = trade_off(evaluations((40.0, 250.0), (10.0, 150.0), (10.1, 150.1)))
    assert [point.label for point in shown.points] == ["1k", "", "3k"]


def test_one_evaluation_is_a_point_and_none_is_no_chart():
    (point,) = trade_off(evaluations((10.0, 100.0))).points
    assert 0 <= point.x <= 100
    assert 0 <= point.y <= 100
    assert trade_off(rows()) is None
    assert trade_off([{"images": 1.0, "eval/rate": math.nan, "eval/distortion": 1.0}]) is None


def test_the_page_shows_the_points_of_a_vae_alone():
    text = page(evaluations((40.0, 250.0), (10.0, 200.0)))
    tags = Tags(text).found
    points = [attributes for _, attributes in tags if attributes.get("class", "").startswith("point")]
    assert [point["title"].split(":")[0] for point in points] == ["1,000 images", "2,000 images"]
    assert "Rate against distortion" in text
    assert "Rate against distortion" not in page(rows())
