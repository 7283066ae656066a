"""FID's Inception network; beside torch-fidelity's, with the same weights, in benchmarks/fidelity.py."""

import pytest
import torch

from imagegen_dist.models.inception import CLASSES, FEATURES, FixedNorm, Inception


@pytest.fixture(scope="module")
def network():
    return Inception().eval().requires_grad_(False)


def test_it_has_the_published_size(network):
    tensors = network.state_dict()
    assert sum(name.endswith("conv.weight") for name in tensors) == 94
    weights = {name: tensor.numel() for name, tensor in tensors.items() if "running" not in name}
    assert sum(weights.values()) == 23_850_960
    assert weights["fc.weight"] == FEATURES * CLASSES


def test_pictures_of_any_size_give_features_and_logits_without_a_bias(network):
    with torch.no_grad():
        features = network(torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0)) * 255)
    assert features.shape == (2, FEATURES)
    torch.testing.assert_close(network.head(features), network.fc(features) - network.fc.bias)


def test_fixed_normalisation_is_that_of_batches_in_evaluation():
    generator = torch.Generator().manual_seed(0)
    ours, peer = FixedNorm(4), torch.nn.BatchNorm2d(4, eps=1e-3).eval()
    values = {name: torch.rand(4, generator=generator) + 0.5 for name in ours.state_dict()}
    ours.load_state_dict(values)
    peer.load_state_dict(values, strict=False)
    x = torch.randn(3, 4, 5, 5, generator=generator)
    torch.testing.assert_close(ours(x), peer(x))


@pytest.mark.parametrize("name", ["Mixed_6c.branch7x7dbl_4.conv.weight", "fc.bias"])
def test_a_file_of_another_network_is_refused_naming_the_tensor(network, name):
    tensors = network.state_dict()
    kept = {key: value for key, value in tensors.items() if key != name}
    with pytest.raises(ValueError, match=rf"w.safetensors lacks the tensor {name} \["):
        Inception().load(kept, "w.safetensors")
    with pytest.raises(ValueError, match=rf"w.safetensors has \[7\] for the tensor {name}"):
        Inception().load(kept | {name: torch.zeros(7)}, "w.safetensors")
