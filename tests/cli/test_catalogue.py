"""The file of names that help reads in place of the modules is as they are."""

from collections.abc import Callable

import pytest

from imagegen_dist import config_docs
from imagegen_dist.cli.catalogue import build, catalogue, described_settings, list_settings, settings_of
from imagegen_dist.config import ConfigError, override, paths
from imagegen_dist.presets import find_preset


def test_the_file_is_up_to_date() -> None:
    assert catalogue() == build(), "run python -m imagegen_dist.cli.catalogue"


def test_settings_of_a_preset_are_its_experiments() -> None:
    found = paths(find_preset("digits-vae").experiment)
    assert settings_of("digits-vae") == [path.replace("_", "-") for path in found]
    assert "model.widths" in list_settings()
    assert "objective.gamma" not in list_settings()


def refusal(call: Callable[..., object], *arguments: object) -> str:
    """What a call refuses its arguments with; "" where it takes them."""
    try:
        call(*arguments)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("preset", ["digits", "digits-vae"])
def test_values_are_refused_as_the_decoder_refuses_them(preset: str) -> None:
    experiment = find_preset(preset).experiment
    assert described_settings(preset) == list(config_docs.settings(experiment))
    texts = ("", "x", "1.5", "1:2", "none", '"gan"', "true", "9" * 400)
    refused = {
        (setting.path, text): line
        for setting in described_settings(preset)
        for text in texts
        if (line := refusal(config_docs.check_text, setting, text))
    }
    assert len(refused) > 200
    assert refused == {(path, text): refusal(override, experiment, path, text) for path, text in refused}
