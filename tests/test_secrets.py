"""Keys and passwords: none in what a run leaves or says, and none taken in a URL."""

from urllib.parse import quote

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from imagegen_dist import records
from imagegen_dist.cli import data as shards
from imagegen_dist.cli import export, sample
from imagegen_dist.cli.train import main_gan
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.pack import pack
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import StorageError, Store, file_at
from tests.runs import Listener, tiny, train_here
from tests.s3.server import KEY_ID, SECRET

WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"
PASSWORD = "hunter2hunter2"

URLS = {
    "a password": f"s3://{KEY_ID}:{PASSWORD}@bucket/x",
    "a secret with a slash": f"s3://{KEY_ID}:{SECRET}@bucket/x",
    "an encoded secret": f"s3://{KEY_ID}:{quote(SECRET, safe='')}@bucket/x",
    "a signature": f"s3://bucket/x?X-Amz-Credential={KEY_ID}%2F20260101&X-Amz-Signature={PASSWORD}",
    "a signature over HTTPS": f"https://bucket.example.com/x?X-Amz-Credential={KEY_ID}&X-Amz-Signature={PASSWORD}",
    "a token": f"https://account.example.net/x?sv=2026&sig={PASSWORD}",
    "a user of a server": f"https://user:{PASSWORD}@host/x",
    "a token as user": f"https://{PASSWORD}@host/x",
    "a key as user": f"s3://{KEY_ID}@bucket/x",
    "a password as parameter": f"https://host/x?password={PASSWORD}",
    "an authorisation as parameter": f"https://host/x?auth={PASSWORD}",
    "a web token as parameter": f"https://host/x?size=2&jwt={PASSWORD}",
    "a chain": f"simplecache::s3://{KEY_ID}:{PASSWORD}@bucket",
}
COMMANDS = {
    "--data": lambda url: main_gan(["digits", "--data", url, "--storage", "runs", "--dry-run"]),
    "--data.validation": lambda url: main_gan(
        ["digits", "--data", "set", "--data.validation", url, "--storage", "runs"]
    ),
    "--storage": lambda url: main_gan(["digits", "--storage", url, "--dry-run"]),
    "SOURCE": lambda url: shards.main([url, "shards"]),
    "DEST": lambda url: shards.main(["pictures", url]),
    "--index-only": lambda url: shards.main(["--index-only", url]),
    "CHECKPOINT": lambda url: sample.main([url, "--grid", "grid.png"]),
    "--shards": lambda url: sample.main(["run", "--shards", url]),
    "DEST of an export": lambda url: export.main(["run", url]),
}
every_url = pytest.mark.parametrize("url", URLS.values(), ids=URLS.keys())
every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())


def assert_clean(text: bytes, where: object) -> None:
    """No made-up key, password or secret, as it is or encoded for a URL."""
    for secret in (KEY_ID, SECRET, quote(SECRET), quote(SECRET, safe=""), WANDB_KEY, PASSWORD):
        assert secret.encode() not in text, where


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@every_url
def test_a_url_that_carries_a_secret_is_no_place(url):
    with pytest.raises(StorageError) as error:
        Store(url)
    assert "\n" not in str(error.value)
    assert_clean(str(error.value).encode(), "the error")


@every_url
def test_nor_is_a_file_there(url):
    with pytest.raises(StorageError) as error:
        file_at(f"{url}.safetensors")
    assert_clean(str(error.value).encode(), "the error")


def test_what_a_client_says_of_a_signed_url_is_shown_without_the_signature(monkeypatch):
    def redirected(self, path, **options):
        raise RuntimeError(f"403, message='Forbidden', url='https://cdn/x?X-Amz-Signature={PASSWORD}'")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", redirected)
    with pytest.raises(StorageError, match="403, message='Forbidden', url='https://cdn/x") as error:
        Store("memory://set").read("index.json")
    assert_clean(str(error.value).encode(), "the error")


@every_url
@every_command
def test_a_command_with_a_secret_in_a_url_is_refused_in_one_line_without_it(elsewhere, inputs, capfd, url, command):
    assert command(url) == MISUSED == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert_clean(said.err.encode(), "standard error")
    for name in elsewhere.rglob("*"):
        assert_clean(bytes(name), "a file's name")


@pytest.fixture
def inputs(elsewhere):
    """A folder of pictures, and a dataset."""
    (elsewhere / "pictures").mkdir()
    Image.new("L", (8, 8)).save(elsewhere / "pictures" / "0.png")
    pack(((np.zeros((1, 8, 8), np.uint8), number) for number in range(10)), Store(elsewhere / "set"))


@pytest.fixture
def dataset(bucket):
    """The URL of 500 pictures of noise, of digits' size."""
    pixels = np.random.default_rng(0).integers(0, 256, (500, 1, 28, 28), dtype=np.uint8)
    pack(((sample, number % 10) for number, sample in enumerate(pixels)), Store(f"{bucket.url}/set"), extension="npy")
    return f"{bucket.url}/set"


def test_a_run_on_s3_leaves_no_secret_anywhere(bucket, dataset, elsewhere, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", WANDB_KEY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    cache = elsewhere / "cache"
    experiment = tiny(training__total_images=120, data__cache__directory=str(cache), data__workers=0)
    where = RunSettings(
        name="run",
        storage=f"{bucket.url}/runs",
        preset="digits",
        job="train_gan",
        data=dataset,
        wandb_mode="offline",
        wandb_directory=str(elsewhere / "wandb"),
        wandb_key=True,
    )
    records.write_config(where, experiment, Dataset.open(where.data).index, {})
    listener = Listener()
    assert train_here(experiment, where, listener).complete
    said = capfd.readouterr()
    assert_clean("\n".join([said.out, said.err, *listener.messages]).encode(), "what was said")
    left = [path for folder in (bucket.folder, elsewhere) for path in folder.rglob("*") if path.is_file()]
    names = " ".join(str(path) for path in left)
    for expected in ("run/config.json", "run/report.html", "run/result.json", "checkpoints/", "cache/", ".wandb"):
        assert expected in names
    for path in left:
        assert_clean(path.read_bytes(), path)


def test_commands_on_s3_say_no_secret(bucket, dataset, elsewhere, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", WANDB_KEY)
    Store(dataset).remove("index.json")
    assert shards.main(["--index-only", dataset]) == DONE
    assert main_gan(["digits", "--data", dataset, "--storage", f"{bucket.url}/runs", "--dry-run"]) == DONE
    assert main_gan(["digits", "--data", f"{dataset}/nothing", "--storage", f"{bucket.url}/runs"]) == MISUSED
    said = capfd.readouterr()
    assert dataset in said.out
    assert f"{dataset}/nothing" in said.err
    assert_clean((said.out + said.err).encode(), "what was said")
