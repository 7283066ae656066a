"""Random weights in the form of LPIPS's: `python -m tests.documented.lpips_weights FILE`"""

import sys

import torch
from safetensors.torch import save_file

from imagegen_dist.models.lpips import untrained_lpips
from imagegen_dist.shape import SampleShape


def main(path: str) -> None:
    """Write them."""
    torch.manual_seed(0)
    network, weights = untrained_lpips(SampleShape(3, (256, 256)))
    tensors = {name.removeprefix("vgg."): tensor for name, tensor in network.state_dict().items() if "vgg." in name}
    save_file(tensors | {f"channel_weights.{i}": weight.flatten() for i, weight in enumerate(weights)}, path)


if __name__ == "__main__":
    main(sys.argv[1])
