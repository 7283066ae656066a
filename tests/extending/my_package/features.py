"""A feature network of one's own: random projections of the pixels, the same ones everywhere."""

import hashlib

import torch

from imagegen_dist.evaluation.feature_networks import FeatureSource, register_features
from imagegen_dist.metrics.features import FeatureNetwork
from imagegen_dist.shape import SampleShape

FEATURES = 16


@register_features("projections")
def random_projections(source: FeatureSource, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    """Samples [B, C, *S] -> [B, 16], each a sum of all values with random weights."""
    weights = torch.randn(shape.numel, FEATURES, generator=torch.Generator().manual_seed(0)) / shape.numel**0.5
    sha256 = hashlib.sha256(weights.numpy().tobytes()).hexdigest()
    weights = weights.to(device)
    return FeatureNetwork("random projections", sha256, FEATURES, lambda x: x.flatten(1) @ weights)
