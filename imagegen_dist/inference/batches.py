"""How many samples a model computes at a time where nobody says it."""

from imagegen_dist.inference.model import Model
from imagegen_dist.prediction.sampling import samples_at_once

_MOST = 64
"""On a GPU, at most: every request computes whole batches, and most requests are for few samples."""


def batch_on(model: Model) -> int:
    """Samples of a batch on the model's device: 8 on the CPU; up to 64 on a GPU, as its memory is predicted to take."""
    told, vectors = model.label_width, model.conditions is not None
    return samples_at_once(model.sampler, told, model.device, model.batch, _MOST, vectors)
