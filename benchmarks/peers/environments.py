"""The peers' own environments: their packages alone, torch and the rest from the environment that runs the benchmark.

A dependency that a peer imports and never calls on the path that is measured is a stub; nothing of the path is.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

_S3 = ("boto3==1.44.5", "botocore==1.44.5", "s3transfer", "jmespath")
PACKAGES = {
    "litdata": ("litdata==0.2.76", "lightning-utilities", *_S3),
    "streaming": (
        *("mosaicml-streaming==0.13.0", "Brotli", "catalogue", "python-snappy", "cramjam", "tqdm", "xxhash", "zstd"),
        *_S3,
    ),
    "pythae": ("pythae==0.1.2", "cloudpickle", "imageio", "tqdm"),
    "torch_fidelity": ("torch-fidelity==0.4.0", "prdc==0.2", "tqdm"),
}
_STUBS: dict[str, dict[str, str]] = {
    "streaming": {
        "torchvision/datasets.py": "class VisionDataset: ...",
        "torchvision/transforms/functional.py": "def to_tensor(picture): raise NotImplementedError",
        "transformers/feature_extraction_utils.py": "class BatchFeature(dict): ...",
        "transformers/tokenization_utils_base.py": "class BatchEncoding(dict): ...",
        "transformers/models/auto/tokenization_auto.py": "class AutoTokenizer: ...",
    },
    "litdata": {},
    "pythae": {},
    "torch_fidelity": {
        "torchvision/__init__.py": "",
        "torchvision/datasets.py": "class CIFAR10: ...\nclass CIFAR100: ...\nclass STL10: ...",
        "torchvision/transforms/functional.py": "",
    },
}


def environment(name: str, folder: Path) -> str:
    """The Python of a peer's environment below `folder`, made where it is missing. Raises CalledProcessError."""
    home = folder / "environments" / name
    python = home / "bin" / "python"
    if (home / "complete").exists():
        return str(python)
    venv.create(home, with_pip=True, clear=True)
    subprocess.run([str(python), "-m", "pip", "install", "-qq", "--no-deps", *PACKAGES[name]], check=True)
    places = {"base": str(home), "platbase": str(home)}
    packages = Path(sysconfig.get_path("purelib", "venv", places))
    # A path file comes after the environment's own packages, so that theirs win.
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + os.linesep)
    for path, text in _STUBS[name].items():
        (packages / path).parent.mkdir(parents=True, exist_ok=True)
        (packages / path).write_text(text + "\n")
    subprocess.run([str(python), "-c", f"import {name}, torch"], check=True, cwd=home, stdout=sys.stderr)
    (home / "complete").touch()
    return str(python)
