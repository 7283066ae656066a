"""Directions of a latent space: what they are found to be where it is known, and that setting one sets nothing else."""

import pytest
import torch

from imagegen_dist import load
from imagegen_dist.cli.export import main as export
from imagegen_dist.errors import DONE
from imagegen_dist.inference.directions import Directions, orthogonalised
from imagegen_dist.inference.find_directions import directions_of_samples, first_layer
from tests.checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
    return load(write_checkpoint(tmp_path_factory.mktemp("gan") / "run", "r3gan"))


def test_sefa_is_the_singular_vectors_of_the_first_layer(gan):
    weight = gan.generator.modulate.weight[:, :8]
    assert torch.allclose(first_layer(gan), weight * (first_layer(gan) / weight).mean(), atol=1e-6)
    found = gan.directions(("sefa",), count=3)
    lengths = [float((weight @ each.vector).norm()) for each in found.entries]
    assert lengths == pytest.approx(torch.linalg.svdvals(weight)[:3].tolist(), rel=1e-5)
    assert [each.explains for each in found.entries] == sorted((each.explains for each in found.entries), reverse=True)


def test_a_score_that_is_one_coordinate_of_z_gives_this_axis(gan):
    axis = gan.latents(1000, 2**63)[:, 2]  # the samples are of this seed
    found = gan.directions(("scores",), scores={"mine": lambda samples: axis, "noise": lambda x: torch.randn(len(x))})
    assert found.names == ("mine",)  # nothing predicts noise
    assert found.entries[0].vector[2] > 0.999
    assert found.entries[0].explains > 0.99


def test_directions_are_orthonormal_and_repetitions_are_left_out(gan):
    found = gan.directions(("scores", "pca", "sefa"))
    vectors = torch.stack([each.vector for each in found.entries])
    assert torch.allclose(vectors @ vectors.T, torch.eye(len(vectors)), atol=1e-5)
    assert orthogonalised(torch.tensor([[1.0, 0], [1, 0.1], [1, 1]]))[1] == [0, 2]


def test_setting_a_coordinate_changes_no_other(gan):
    found = Directions.from_payload(gan.directions(("sefa",)).payload())
    z = gan.latents(5)
    moved = found.set(z, {"sefa2": 1.5})
    change = found.coordinates(moved) - found.coordinates(z)
    assert torch.allclose(found.coordinates(moved)[:, 1], torch.full((5,), 1.5), atol=1e-4)
    assert float(change[:, [0, 2, 3]].abs().max()) < 1e-4


def test_sample_takes_coordinates_by_name_and_names_what_there_is(gan):
    z = gan.directions(("sefa",)).set(gan.latents(3, 1) * 0.5, {"sefa1": -2})
    assert torch.equal(gan.sample(3, 0, 1, 0.5, directions={"sefa1": -2}), gan.generate(z, gan.labels(3, 0)))
    with pytest.raises(ValueError, match="did you mean sefa1"):
        gan.sample(1, directions={"sefa01": 1.0})


def test_labels_do_not_leak_into_directions(gan):
    """A score that is the class alone has no direction, though classes differ in their pictures."""
    classes = gan.labels(1000).float()
    assert not gan.directions(("scores",), scores={"class": lambda samples: classes})


def test_conditions_of_encoded_samples_have_directions(tmp_path):
    vae = load(write_checkpoint(tmp_path / "run", "mlp-vae"))
    samples = torch.randint(0, 256, (200, *vae.shape.dims), dtype=torch.uint8)
    label = vae.labels(200)
    z = vae.encode(samples, label)
    found = directions_of_samples(vae, samples, {"first": z[:, 0], "noise": torch.randn(200)}, label)
    assert found.names[0] == "first"
    assert found.entries[0].explains > 0.99


def test_codes_and_maps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="codes"):
        load(write_checkpoint(tmp_path / "fsq", "fsq")).directions()
    with pytest.raises(ValueError, match="maps"):
        load(write_checkpoint(tmp_path / "res", "res-vae")).directions()


def test_an_exported_folder_carries_them(gan, tmp_path):
    assert export([write_checkpoint(tmp_path / "run", "r3gan"), str(tmp_path / "out"), "--directions"]) == DONE
    found = load(tmp_path / "out")
    assert Directions.from_payload(found.facts["directions"]).names == gan.directions().names
    name = gan.directions().names[0]
    same = found.sample(2, directions={name: 1.0}).int() - gan.sample(2, directions={name: 1.0}).int()
    assert int(same.abs().max()) <= 1  # vectors are stored with six decimals
