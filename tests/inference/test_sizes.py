"""A small folder that declares a huge network is refused before the memory is taken."""

from __future__ import annotations

import json

import pytest
import torch

from imagegen_dist import load
from imagegen_dist.inference.folder import card_of, write_folder
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.storage import Store
from tests.checkpoints import write_checkpoint

DECLARED = {
    "a wide generator": ("r3gan", lambda facts: facts["experiment"]["model"].update(widths=[12000, 12000])),
    "a wide encoder": ("mlp-vae", lambda facts: facts["experiment"]["model"].update(hidden=[60000, 60000])),
    "many blocks": ("res-vae", lambda facts: facts["experiment"]["model"].update(blocks=10**6, channels=64)),
    "many classes": ("r3gan", lambda facts: facts["data"].update(classes=10**10)),
    "huge samples": ("res-vae", lambda facts: facts["data"]["shape"].update(spatial=[1 << 20, 1 << 20])),
    "a wide discriminator": (
        "vae-gan",
        lambda facts: facts["experiment"]["objective"].update(discriminator_channels=8000),
    ),
}


@pytest.mark.parametrize(("family", "declare"), DECLARED.values(), ids=DECLARED.keys())
def test_what_it_declares_is_held_against_its_weights(family, declare, tmp_path):
    model = load(write_checkpoint(tmp_path / "run", family))
    store = Store(tmp_path / "exported")
    write_folder(model, card_of(model), store)
    assert load(store.url)
    facts = json.loads(store.read("config.json"))
    declare(facts)
    store.write("config.json", json.dumps(facts).encode())
    with pytest.raises(CheckpointError, match=r"declares (networks|samples) of") as refused, Largest() as largest:
        load(store.url)
    assert "\n" not in str(refused.value)
    assert largest.numbers <= 1 << 25


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The most numbers in a tensor that was made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made
