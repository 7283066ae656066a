import hashlib
import io
import json

import pytest
import torch
from safetensors.torch import load

from imagegen_dist.training.tensor_file import Digest, write_tensors

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def written(tensors):
    file = io.BytesIO()
    digest = Digest(file)
    write_tensors(tensors, digest)
    assert digest.size == len(file.getvalue())
    assert digest.sha256 == hashlib.sha256(file.getvalue()).hexdigest()
    return file.getvalue()


def test_the_library_reads_back_every_dtype_shape_and_layout():
    shapes = [(), (0,), (3,), (2, 0, 4), (2, 3, 5)]
    tensors = {
        f"{name}/é{shape}": (100 * torch.rand(shape)).to(getattr(torch, name)) for name in DTYPES for shape in shapes
    }
    tensors |= {
        "transposed": torch.rand(4, 6).T,
        "strided": torch.rand(20)[::3],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    read = load(written(tensors))
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_every_tensor_is_aligned_to_its_own_size_and_the_header_to_eight_bytes():
    data = written({"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(3), "c": torch.ones(1, dtype=torch.float64)})
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    for entry in json.loads(data[8 : 8 + length]).values():
        begin, end = entry["data_offsets"]
        assert begin % ((end - begin) // max(1, entry["shape"][0])) == 0


def test_a_file_without_tensors_is_one_too():
    assert load(written({})) == {}


def test_a_dtype_that_no_checkpoint_has_is_refused_by_name():
    with pytest.raises(ValueError, match=r"phase has dtype torch\.complex64"):
        written({"phase": torch.ones(1, dtype=torch.complex64)})
