"""A model pushed to a Hub and fetched again, by huggingface_hub's client over HTTP."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from imagegen_dist import load
from tests.checkpoints import write_checkpoint
from tests.inference.hub_server import TOKEN, serving

# In a process of its own: the client reads its endpoint, and that it may connect at all, when it is imported.
PUSH_AND_FETCH = """
import hashlib, sys
from imagegen_dist import load
from imagegen_dist.inference.hub import HubModel, for_hub

print(for_hub(load(sys.argv[1])).push_to_hub("somebody/digits"))
print(hashlib.sha256(HubModel.from_pretrained("somebody/digits").sample(5, seed=1).numpy().tobytes()).hexdigest())
"""


def run(endpoint: str, token: str, checkpoint: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PUSH_AND_FETCH, checkpoint]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_model_pushed_with_a_token_is_fetched_with_the_same_samples(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "run", "r3gan")
    with serving() as hub:
        done = run(hub.endpoint, TOKEN, checkpoint, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    url, digest = done.stdout.split()
    assert digest == hashlib.sha256(load(checkpoint).sample(5, seed=1).numpy().tobytes()).hexdigest()
    assert url.startswith(f"{hub.endpoint}/somebody/digits")
    files = hub.repositories["somebody/digits"]
    assert files.keys() == {"README.md", "config.json", "model.safetensors", "samples.png"}
    assert json.loads(files["config.json"])["library_name"] == "imagegen_dist"
    assert hub.tokens == {f"Bearer {TOKEN}"}
