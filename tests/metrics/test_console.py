import io
import math
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console as Terminal

from imagegen_dist.metrics.console import Console, Progress
from imagegen_dist.sweep.live_table import LiveTable


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def file():
    return io.StringIO()


def row(images, **figures):
    always = {"system/images_per_s": 1234.0, "loss/discriminator": 0.693, "loss/generator": 0.712}
    return {"images": images} | always | {name.replace("__", "/"): value for name, value in figures.items()}


def view(console, width=80):
    """The live view's text, line by line."""
    terminal = Terminal(file=io.StringIO(), width=width, record=True)
    terminal.print(console._view())
    return [line.rstrip() for line in terminal.export_text().splitlines()]


def test_a_plain_line_says_how_far_how_fast_and_how_well(file, clock):
    with Console(400_000, "digits", file, clock=clock) as console:
        console.row(row(153_600, eval__frechet=12.3, eval__label_agreement=0.961))
    line = file.getvalue().splitlines()[1]
    assert line == (
        " 153,600 / 400,000   38 %     1,234 img/s   left    3:20   loss D 0.6930  G 0.7120   frechet 12.30"
        "   label agreement 96.1%"
    )


def test_plain_lines_come_at_most_every_few_seconds_but_evaluations_and_the_last_row_always(file, clock):
    with Console(10_000, "digits", file, clock=clock, min_interval_s=3) as console:
        for second in range(8):
            clock.now_s = 100.0 + second
            console.row(row(1000 * (second + 1), **({"eval__frechet": 9.0} if second == 4 else {})))
    images = [line.split("/")[0].strip() for line in file.getvalue().splitlines()[1:]]
    assert images == ["1,000", "4,000", "5,000", "8,000"]
    assert file.getvalue().count("frechet") == 1


def test_plain_lines_are_aligned_and_free_of_control_codes(file, clock):
    with Console(250_000_000, "r3gan", file, clock=clock) as console:
        for images in (512, 51_200_000):
            clock.now_s += 60
            console.row(row(images))
    first, second = file.getvalue().splitlines()[1:]
    assert first.index("img/s") == second.index("img/s")
    assert "\x1b" not in file.getvalue()


def test_long_plain_lines_are_not_wrapped(file, clock):
    with Console(1000, "x" * 300, file, clock=clock) as console:
        console.message("y" * 300)
    assert file.getvalue() == "x" * 300 + "\n" + "y" * 300 + "\n"


def test_what_others_print_does_not_come_through_the_live_view(file, capsys):
    with Console(1000, "digits", file, terminal=True, width=80):
        print("(PlacementGroupCleaner pid=1) Failed to query Ray Train Controller actor state.")
        sys.stderr.write("Traceback\n")
    with LiveTable("sweep", ["optim.*.lr"], [], 3, file, terminal=True, width=80):
        print("noise of a trial")
    assert "Cleaner" not in file.getvalue()
    assert "Traceback" not in file.getvalue()
    assert "noise" not in file.getvalue()
    said = capsys.readouterr()
    assert "PlacementGroupCleaner" in said.out
    assert "Traceback" in said.err


def test_a_phase_is_written_once_to_a_plain_file(file):
    with Console(1000, "digits", file) as console:
        for _ in range(3):
            console.phase("evaluating")
            console.phase("")
    assert file.getvalue().splitlines() == ["digits", "· evaluating"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_live_view_fits_its_width(file, clock, width):
    console = Console(
        250_000_000, "r3gan-ffhq256 · " + "a-long-run-name-" * 5, file, terminal=True, width=width, clock=clock
    )
    console.phase("starting 16 workers (cuda, nccl)")
    assert len(view(console, width)) == 1
    losses = {f"loss__term_{i}": 10.0**i for i in range(6)}
    console.row(row(153_600_000, eval__frechet=2.75, data__wait_fraction=0.012, training__skipped_steps=2, **losses))
    lines = view(console, width)
    assert max(len(line) for line in lines) <= width
    assert "images/s" in lines[1]


def test_the_live_view_shows_losses_evaluation_waiting_and_skipped_steps(file, clock):
    console = Console(400_000, "digits", file, terminal=True, width=80, clock=clock)
    console.row(row(153_600, data__wait_fraction=0.012))
    assert not any("skipped" in line for line in view(console))
    console.row({"images": 153_600, "eval/label_agreement": 0.972, "training/skipped_steps": 2})
    text = "\n".join(view(console))
    assert " 38 %  153.6k / 400k images   1,234 images/s    3:20 left" in text
    assert "discriminator 0.6930" in text
    assert "label agreement 97.2%" in text
    assert "1.2 % of the time" in text
    assert "2 steps" in text


def test_modes_are_whole_numbers_and_authenticity_is_a_share(file, clock):
    with Console(1000, "stacks", file, terminal=False, width=200, clock=clock) as console:
        console.row(row(1000, eval__modes=998.0, eval__modes_kl=0.0812, eval__authenticity=0.581, eval__copied_z=1.5))
    assert "   modes 998   modes kl 0.0812   authenticity 58.1%   copied z 1.500" in file.getvalue()


def test_a_live_run_leaves_its_last_state_and_shows_the_cursor_again(file, clock):
    with Console(1000, "digits", file, terminal=True, width=80, clock=clock) as console:
        console.row(row(1000))
    assert "100 %" in file.getvalue()
    assert file.getvalue().rstrip().endswith("\x1b[?25h")


def test_a_notebook_shows_one_output_that_is_replaced(monkeypatch, clock):
    """The text below a cell has no cursor that moves up: a terminal's live view would be there a thousand times."""
    shown: list[dict[str, str]] = []
    handle = SimpleNamespace(update=lambda drawn, raw: shown.append(drawn))

    def display(drawn, raw, display_id):
        shown.append(drawn)
        return handle

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    with Console(1000, "digits", stream, clock=clock) as console:
        console.row(row(1000))
        console.message("a checkpoint was damaged")
    assert "digits" in shown[0]["text/plain"]
    assert "100 %" in shown[-1]["text/plain"]
    assert "0.7120" in shown[-1]["text/html"]
    assert stream.getvalue() == "a checkpoint was damaged\n"


def test_errors_are_whole_and_take_no_markup(file):
    with Console(1000, "digits", file) as console:
        console.error("a worker failed", "Traceback [red]\n  :smile: " + "x" * 200 + "\n")
    assert file.getvalue().splitlines()[1:] == ["a worker failed", "Traceback [red]", "  :smile: " + "x" * 200]


def test_the_summary_aligns_names_and_never_breaks_a_path(file):
    path = "/" + "a-long-folder/" * 20 + "report.html"
    console = Console(1000, "digits", file, terminal=True, width=80)
    console.summary([("Files", [("report", path)])])
    assert path in file.getvalue()
    plain = io.StringIO()
    Console(1000, "digits", plain).summary([("Files", [("report", path), ("others", "one\ntwo")])])
    assert plain.getvalue().splitlines() == ["", "Files", f"  report   {path}", "  others   one", "           two", ""]


def test_time_left_is_first_the_reported_pace_then_the_pace_since_the_first_row():
    progress = Progress(1000)
    assert math.isinf(progress.left_s(0.0, math.nan))
    progress.advance(100, 0.0)
    assert progress.left_s(1.0, images_per_s=10.0) == 90.0
    progress.advance(200, 20.0)
    assert progress.left_s(20.0, images_per_s=10.0) == 160.0


def test_time_left_starts_anew_where_workers_went_back_to_a_checkpoint():
    progress = Progress(1000)
    progress.advance(0, 0.0)
    progress.advance(500, 50.0)
    progress.advance(400, 100.0)
    assert progress.fraction == 0.4
    assert progress.left_s(100.0, images_per_s=6.0) == 100.0
