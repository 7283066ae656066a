import os
import signal

import pytest

from imagegen_dist.cli.sweep import main as sweep_main
from imagegen_dist.cli.train import main_gan
from imagegen_dist.ray.signals import Interruption


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_is_noted_and_a_second_one_ends_the_process(number, code):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    interruption = Interruption()
    with interruption.watched():
        assert interruption.code is None
        os.kill(os.getpid(), number)
        assert interruption.code == code
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGINT)
        assert ended.value.code == 130
    assert interruption.code == code
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_before_there_is_something_to_save_the_first_signal_ends_the_process():
    """And what Ray sets on its start, within the block, is replaced by a second one that notes the signal."""
    interruption = Interruption()
    with interruption.watched(at_once=True):
        with interruption.watched():
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.code == 143
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143


@pytest.mark.parametrize(
    ("command", "step", "arguments"),
    [
        (main_gan, "imagegen_dist.cli.prepare.prepare", []),
        (sweep_main, "imagegen_dist.cli.sweep_run.build_plan", ["gan-lr", "--trials", "1"]),
    ],
)
def test_ctrl_c_before_there_is_a_driver_is_one_line(command, step, arguments, monkeypatch, capsys):
    def interrupt(*arguments):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(step, interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        assert command(arguments) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err
    assert "interrupted before the" in said
    assert said.count("\n") == 1
