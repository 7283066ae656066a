"""hf:// in all its spellings, by huggingface_hub's own client over HTTP from a Hub on loopback."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from imagegen_dist.data.pack import pack
from imagegen_dist.storage import Store
from tests.hub_of_datasets import GATED, serving

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

# In a process of its own: the client reads its endpoint, and that it may connect at all, when it is imported.
LOOK = """
import json, sys
from imagegen_dist.data.sources.detect import open_source
from imagegen_dist.storage import Store

def tried(call):
    try:
        return call()
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"

found = {}
for url in sys.argv[1:]:
    folder, name = url.rstrip("/").rsplit("/", 1)
    found[url] = {
        "names": tried(Store(url).names),
        "exists": tried(Store(url).exists),
        "samples": tried(lambda: open_source(url).count),
    }
    if name.endswith((".tar", ".parquet")):
        found[url] |= {
            "bytes": tried(lambda: [len(Store(folder).read(name)), Store(folder).size(name)]),
            "range": tried(lambda: Store(folder).read_range(name, 1, 5).decode("latin-1")),
            "download": tried(lambda: Store(folder).download(name, "copy", 20.0, 5.0)),
        }
print(json.dumps(found))
"""

ROOT = "hf://datasets/somebody/pictures"
TARS = ["train/a.tar", "train/b.tar"]
FOLDERS = {
    "hf://datasets/somebody/table": (["data"], 2),
    "hf://datasets/somebody/table/": (["data"], 2),
    "hf://datasets/somebody/table@main": (["data"], 2),
    ROOT: (["README.md", "train"], 6),
    f"{ROOT}/train": (["a.tar", "b.tar"], 6),
    f"{ROOT}@main/train": (["a.tar", "b.tar"], 6),
    f"{ROOT}@v1.0/train": (["a.tar"], 3),
    f"{ROOT}@feature%2Fx/train": (["b.tar"], 3),
    f"{ROOT}@~parquet": (["default"], 2),
    f"{ROOT}@~parquet/default/train": (["0000.parquet"], 2),
    f"{ROOT}@refs/convert/parquet": (["default"], 2),
    f"{ROOT}@refs/convert/parquet/default/train": (["0000.parquet"], 2),
    f"{ROOT}@refs%2Fconvert%2Fparquet/default/train": (["0000.parquet"], 2),
    "hf://models/somebody/tables/default/train": (["0000.parquet"], 2),
    "hf://somebody/tables/default/train": (["0000.parquet"], 2),
}
FILES = {
    f"{ROOT}/train/a.tar": 3,
    f"{ROOT}@main/train/a.tar": 3,
    f"{ROOT}@~parquet/default/train/0000.parquet": 2,
    f"{ROOT}@refs/convert/parquet/default/train/0000.parquet": 2,
    f"{ROOT}@refs%2Fconvert%2Fparquet/default/train/0000.parquet": 2,
    "hf://somebody/tables/default/train/0000.parquet": 2,
}
MISSING = ["hf://datasets/somebody/nothing", f"{ROOT}@nothing", f"{ROOT}/nothing", f"{ROOT}@~nothing/x"]
REFUSED = f"hf://{GATED.removeprefix('models/')}"


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """(a shard of three samples, a parquet file of two)."""
    store = Store(tmp_path_factory.mktemp("set"))
    pack([(np.zeros((1, 4, 4), np.uint8), 0)] * 3, store)
    picture, table = io.BytesIO(), io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "PNG")
    images = [{"bytes": picture.getvalue(), "path": "x.png"}] * 2
    parquet.write_table(pyarrow.table({"image": images, "label": [0, 1]}), table)
    return store.read("shard-000000.tar"), table.getvalue()


@pytest.fixture(scope="module")
def found(contents, tmp_path_factory):
    """What a process saw at every URL."""
    shard, table = contents
    home = tmp_path_factory.mktemp("home")
    converted = {"default/train/0000.parquet": table}
    pictures = {
        "main": {"README.md": b"text", **dict.fromkeys(TARS, shard)},
        "v1.0": {"train/a.tar": shard},
        "feature/x": {"train/b.tar": shard},
        "refs/convert/parquet": converted,
    }
    repositories = {
        "datasets/somebody/pictures": pictures,
        "datasets/somebody/table": {"main": {"data/train-0.parquet": table}},
        "models/somebody/tables": {"main": converted},
    }
    with serving(repositories) as endpoint:
        environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        environment.pop("HF_TOKEN", None)
        command = [sys.executable, "-c", LOOK, *FOLDERS, *FILES, *MISSING, REFUSED]
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_spelling_of_a_folder_is_listed_and_is_a_source(found):
    seen = {url: (found[url]["names"], found[url]["samples"]) for url in FOLDERS}
    assert seen == FOLDERS
    assert all(found[url]["exists"] is True for url in FOLDERS)


def test_every_spelling_of_a_file_is_read_and_is_a_source(found, contents):
    for url, samples in FILES.items():
        content = contents[url.endswith(".parquet")]
        assert found[url] == {
            "names": [],
            "exists": True,
            "samples": samples,
            "bytes": [len(content)] * 2,
            "range": content[1:5].decode("latin-1"),
            "download": None,
        }


def test_what_is_missing_does_not_exist_and_what_is_refused_says_so(found):
    for url in MISSING:
        assert (found[url]["names"], found[url]["exists"]) == ([], False)
        assert found[url]["samples"] == f"DatasetError: {url} does not exist"
    assert all("AccessError" in found[REFUSED][key] for key in ("names", "exists", "samples"))
    assert "You must accept its terms" in found[REFUSED]["names"]
