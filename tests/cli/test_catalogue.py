"""The file of names that help reads in place of the modules is as they are."""

from imagegen_dist.cli.catalogue import build, catalogue, list_settings, settings_of
from imagegen_dist.config import paths
from imagegen_dist.presets import find_preset


def test_the_file_is_up_to_date() -> None:
    assert catalogue() == build(), "run python -m imagegen_dist.cli.catalogue"


def test_settings_of_a_preset_are_its_experiments() -> None:
    found = paths(find_preset("digits-vae").experiment)
    assert settings_of("digits-vae") == [path.replace("_", "-") for path in found]
    assert "model.widths" in list_settings()
    assert "objective.gamma" not in list_settings()
