"""Weights of published networks, from a local file: verified by its hash, and never unpickled."""

import hashlib

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from imagegen_dist.storage import file_at
from imagegen_dist.wording import message


def read_weights(url: str, sha256: str, url_flag: str, sha256_flag: str, needed: str) -> dict[str, Tensor]:
    """The tensors of the safetensors file at a path or URL, by name.

    sha256: its expected SHA-256, verified before the file is parsed. url_flag, sha256_flag: the flags that set both.
    needed: what the user should do if it is not such a file, as the end of a sentence.

    Raises ValueError if the file does not exist, if its hash differs, or if it is not a safetensors file; StorageError.
    """
    store, name = file_at(url)
    try:
        data = store.read(name)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"{message(error)}; {needed}") from error
    found = hashlib.sha256(data).hexdigest()
    if not sha256:
        raise ValueError(f"{url} has to be verified by its SHA-256: set {sha256_flag} (it has {found})")
    if found != sha256.lower():
        raise ValueError(
            f"{url} has the SHA-256 {found}, not {sha256}; give another file by {url_flag}, or its hash by "
            f"{sha256_flag}"
        )
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(f"{url} is not a safetensors file ({error}); {needed}") from error


def hash_of_weights(network: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors of the network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
