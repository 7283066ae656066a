"""`imagegen sample --direction`: columns along a direction of the latent space, within ±2."""

import pytest
from PIL import Image

from imagegen_dist.cli.sample import main
from imagegen_dist.cli.sample_directions import parse_directions
from imagegen_dist.errors import DONE, MISUSED, UsageError
from tests.checkpoints import write_checkpoint


def test_a_sweep_has_its_steps_and_other_directions_one_value(capsys):
    sweep = parse_directions("slant=-3:2:5, width=1")
    assert (sweep.swept, sweep.steps, sweep.fixed) == ("slant", (-2.0, -1.0, 0.0, 1.0, 2.0), {"width": 1.0})
    assert "slant=-3 is limited to ±2" in capsys.readouterr().err
    assert parse_directions("slant").columns == 9


@pytest.mark.parametrize("text", ["slant=", "slant=a:b", "slant=-2:2:1", "a=-1:1,b=-1:1", "a=1,a=2", "=1"])
def test_what_is_no_direction_is_one_line(text):
    with pytest.raises(UsageError, match="--direction"):
        parse_directions(text)


def test_the_grid_has_a_column_per_step(tmp_path, capsys):
    run, grid = write_checkpoint(tmp_path / "run", "r3gan"), tmp_path / "out.png"
    words = [run, "--seeds", "0-1", "--grid", str(grid), "--scale", "1", "--direction"]
    assert main([*words, "sefa1=-2:2:4"]) == DONE
    assert "8 samples, 4 in a row" in capsys.readouterr().out
    with Image.open(grid) as made:
        assert made.width >= 4 * 12
    assert main([run, "--direction", "list"]) == DONE
    assert "sefa1" in capsys.readouterr().out
    assert main([*words, "nothing=1"]) == MISUSED
    assert "this model has" in capsys.readouterr().err
