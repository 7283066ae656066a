"""Feature networks: known by the hash of their file, never unpickled, and one line where they cannot be had."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from imagegen_dist.evaluation.feature_networks import FeatureSource, open_network
from imagegen_dist.models.inception import Inception
from imagegen_dist.shape import SampleShape

CPU = torch.device("cpu")
RGB, GREY = SampleShape(3, (32, 32)), SampleShape(1, (28, 28))
MODULE = """
import torch

def halves():
    return torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())

def maps():
    return torch.nn.AvgPool2d(4)

def nothing():
    return None
"""


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> FeatureSource:
    """A file of the network's random initial weights."""
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    torch.manual_seed(0)
    save_file(Inception().state_dict(), path)
    return FeatureSource("inception", str(path), hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_features.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_features", raising=False)


def refusal(source: FeatureSource, shape: SampleShape = RGB) -> str:
    with pytest.raises(ValueError) as caught:
        open_network(source, shape, CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_inception_takes_stored_values_and_grey_as_three_equal_channels(inception: FeatureSource) -> None:
    network = open_network(inception, GREY, CPU)
    assert (network.dim, network.classes, network.sha256) == (2048, 1008, inception.sha256)
    assert network.resize == "bilinear as in TensorFlow 1, no smoothing, to 299×299"
    stored = torch.randint(0, 256, (2, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    features = network.features(stored.float() / 127.5 - 1)
    bare = Inception().eval()
    bare.load(_tensors(inception), "file")
    with torch.no_grad():
        torch.testing.assert_close(features, bare(stored.float().expand(2, 3, 28, 28)))
        assert network.head is not None
        assert network.head(features).shape == (2, 1008)


def _tensors(source: FeatureSource) -> dict[str, torch.Tensor]:
    return source.read("")


def test_the_filter_changes_the_features_and_is_named(inception: FeatureSource) -> None:
    other = open_network(FeatureSource("inception", inception.weights, inception.sha256, "bicubic"), RGB, CPU)
    assert other.resize == "bicubic with smoothing, as Pillow, to 299×299"
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert not torch.allclose(other.features(x), open_network(inception, RGB, CPU).features(x))


def test_a_file_is_asked_for_and_known_by_its_hash(inception: FeatureSource, tmp_path: Path) -> None:
    assert "set --weights to the path or URL of a safetensors file of torch-fidelity's weights-inception-2015" in (
        refusal(FeatureSource("inception"))
    )
    assert f"set --weights-sha256 (it has {inception.sha256})" in refusal(FeatureSource("inception", inception.weights))
    wrong = FeatureSource("inception", inception.weights, "0" * 64)
    assert f"has the SHA-256 {inception.sha256}, not {'0' * 64}; give another file by --weights" in refusal(wrong)
    assert "does not exist" in refusal(FeatureSource("inception", f"{tmp_path}/nowhere.safetensors", "0" * 64))
    of_a_run = FeatureSource("inception", flags="--evaluation.")
    assert "set --evaluation.weights to the path" in refusal(of_a_run)


def test_a_pickle_is_not_read_whatever_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(Inception.__name__, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert "is not a safetensors file" in refusal(FeatureSource("inception", str(path), sha256))


def test_samples_that_are_no_pictures_are_refused(inception: FeatureSource) -> None:
    assert "images with 1 or 3 channels" in refusal(inception, SampleShape(3, (4, 32, 32)))
    assert "set --features to classifier or module:..." in refusal(FeatureSource("dinov2-s"), SampleShape(2, (32, 32)))


@pytest.mark.usefixtures("module")
def test_a_users_network_is_known_by_its_weights_and_measured() -> None:
    network = open_network(FeatureSource.parse("module:users_features:halves"), GREY, CPU)
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert network.dim == 49
    assert torch.equal(network.features(x), torch.nn.functional.avg_pool2d(x, 4).flatten(1))
    assert network.head is None


@pytest.mark.usefixtures("module")
def test_a_users_function_that_does_not_fit_is_named() -> None:
    assert "[2, 1, 28, 28] became [2, 1, 7, 7]; [2, F] is needed" in refusal(
        FeatureSource.parse("module:users_features:maps"), GREY
    )
    assert "returned a NoneType" in refusal(FeatureSource.parse("module:users_features:nothing"))
    assert "cannot be imported" in refusal(FeatureSource.parse("module:users_features:missing"))
    assert "its directory must be on PYTHONPATH" in refusal(FeatureSource.parse("module:no_such_place:f"))


def test_names_that_there_are_not_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"--features vgg is not known; .* one of inception, dinov2, .*, module:"):
        FeatureSource.parse("vgg")
    with pytest.raises(ValueError, match="--resize nearest is not known; set it to one of tensorflow, bicubic"):
        FeatureSource.parse("inception", "nearest")
    with pytest.raises(ValueError, match=r"give module:PACKAGE\.MODULE:FUNCTION"):
        FeatureSource.parse("module:somewhere")


def test_dinov2_without_timm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install -e '.[evaluate]'" in refusal(FeatureSource("dinov2-s", "file", "0"))


def test_dinov2_gives_the_class_token_of_timms_network(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    whole = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=518).eval()
    path = tmp_path / "dinov2.safetensors"
    save_file(whole.state_dict(), path)
    source = FeatureSource("dinov2-s", str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    network = open_network(source, RGB, CPU)
    assert network.dim == 384
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = network.features(x)
    assert features.shape == (2, 384)
    # A normalisation with weights 1 and bias 0 comes last.
    torch.testing.assert_close(features.mean(1), torch.zeros(2), rtol=0, atol=1e-5)
    assert not torch.allclose(features[0], features[1])


def test_the_published_file_is_converted_as_the_guide_says(
    inception: FeatureSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    code = guide.partition("```python\n")[2].partition("```")[0]
    published = _tensors(inception)
    counters = {name.replace("weight", "num_batches_tracked"): torch.tensor(0) for name in published if ".bn.w" in name}
    name = "weights-inception-2015-12-05-6726825d.pth"
    torch.save(published | counters, tmp_path / name)
    sha256 = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    known = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
    assert known in code
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=sha256):
        exec(code)
    exec(code.replace(known, sha256))
    made = hashlib.sha256((tmp_path / "inception.safetensors").read_bytes()).hexdigest()
    converted = FeatureSource("inception", "inception.safetensors", made).read("")
    assert converted.keys() == published.keys()
    assert all(torch.equal(tensor, published[name]) for name, tensor in converted.items())
