"""Two trainings of one VAE: `python -m peers.autoencoders JSON` runs a contender in a process of its own.

784-512-z-512-784 with ReLU, Bernoulli, on digits black and white: the networks that pythae builds by default, and ours
of the same layers; a VAE, or an importance-weighted autoencoder. Each contender is used as its documentation says:
pythae by its BaseTrainer over tensors in memory, ours by its Trainer over the shard stream. The last weights are
written under our names, and our averages of them.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

HIDDEN = 512  # pythae's own


@dataclass(frozen=True)
class Task:
    """What is trained, and how."""

    shards: str  # URL of the training digits, for ours
    tensors: str  # the same digits as safetensors: train, test; float [N, 1, 28, 28] of 0 and 1
    epochs: int
    batch: int  # divides the digits
    lr: float
    latent: int
    seed: int
    weights: str  # file for those after the last step
    averaged: str  # file for our averages
    samples: int  # importance samples of pythae's own estimate; 0 for none
    weighted: int  # importance samples of the loss; 0 for a VAE, whose KL divergence is computed exactly


Epochs = list[tuple[float, float]]
"""(wall, CPU) seconds of every epoch."""


class Laps:
    """Seconds of each epoch."""

    def __init__(self) -> None:
        self.epochs: Epochs = []
        self._began = 0.0, 0.0

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def lap(self) -> None:
        now = time.perf_counter(), time.process_time()
        self.epochs.append((now[0] - self._began[0], now[1] - self._began[1]))
        self._began = now


def ours(task: Task) -> dict[str, Any]:
    """The training loop on the stream, without Ray, checkpoints or pictures; metrics are reduced once an epoch."""
    from imagegen_dist import config
    from imagegen_dist.data.index import DatasetIndex
    from imagegen_dist.data.stream import stream
    from imagegen_dist.distributed import World
    from imagegen_dist.experiment import build_plan, build_trainer
    from imagegen_dist.presets import find_preset
    from imagegen_dist.storage import Store

    store = Store(task.shards)
    index = DatasetIndex.load(store)
    changes = {
        "model": {"kind": "mlpvae", "hidden": [HIDDEN], "latent": task.latent, "init": "pytorch"},
        "objective": {"kind": "vae", "binarize": "threshold"},
        "optim.autoencoder.lr": task.lr,
        "training.batch_size": task.batch,
        "training.microbatch_size": task.batch,
        "training.seed": task.seed,
        "training.ema_half_life": 2 * index.samples,
    }
    if task.weighted:
        changes["objective"] = {"kind": "iwae", "binarize": "threshold", "samples": task.weighted}
    experiment = config.overrides(find_preset("digits-vae").experiment, changes.items())
    trainer = build_trainer(experiment, index, World(), torch.device("cpu"))
    plan = build_plan(experiment, index, draws=1)
    steps = index.samples // task.batch
    laps = Laps()
    laps.start()
    for item in stream(index, store, plan, range(plan.microbatches), 0, steps * task.epochs, experiment.data):
        trainer.step(item)
        if trainer.step_index % steps == 0:
            trainer.means()
            laps.lap()
    for path, modules in ((task.weights, trainer.objective.modules()), (task.averaged, trainer.averages.modules())):
        save_file(torch.nn.ModuleDict(modules).state_dict(), path)
    return {"epochs": laps.epochs}


def pythae(task: Task) -> dict[str, Any]:
    """Its trainer as its tutorial uses it, without evaluation data; progress bars are off."""
    os.environ["TQDM_DISABLE"] = "1"
    from pythae.data.datasets import BaseDataset
    from pythae.models import IWAE, VAE, IWAEConfig, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    laps = Laps()

    class Timing(TrainingCallback):
        def on_epoch_begin(self, training_config: Any, **_: Any) -> None:
            laps.start()

        def on_epoch_end(self, training_config: Any, **_: Any) -> None:
            laps.lap()

    digits = load_file(task.tensors)
    torch.manual_seed(task.seed)  # of the weights; the trainer has a seed of its own
    networks: dict[str, Any] = {"input_dim": (1, 28, 28), "latent_dim": task.latent, "reconstruction_loss": "bce"}
    k = task.weighted
    model = IWAE(IWAEConfig(**networks, number_samples=k)) if k else VAE(VAEConfig(**networks))
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=task.epochs,
            per_device_train_batch_size=task.batch,
            learning_rate=task.lr,
            seed=task.seed,
            no_cuda=True,
        )
        train = BaseDataset(digits["train"], torch.zeros(len(digits["train"])))
        trainer = BaseTrainer(model, train, training_config=settings, callbacks=[Timing()])
        trainer.train()
    save_file(under_our_names(model.state_dict()), task.weights)
    found: dict[str, Any] = {"epochs": laps.epochs}
    if task.samples:
        with torch.no_grad():
            own = model.eval().get_nll(digits["test"], task.samples, min(task.samples, 100))
        found["own_nll"] = -float(own)  # it gives the mean of log p
    return found


def under_our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """pythae's weights for our networks."""
    heads = ("encoder.embedding", "encoder.log_var")
    return {
        "encoder.hidden.0.weight": state["encoder.layers.0.0.weight"],
        "encoder.hidden.0.bias": state["encoder.layers.0.0.bias"],
        "encoder.output.weight": torch.cat([state[f"{head}.weight"] for head in heads]),
        "encoder.output.bias": torch.cat([state[f"{head}.bias"] for head in heads]),
        "decoder.hidden.0.weight": state["decoder.layers.0.0.weight"],
        "decoder.hidden.0.bias": state["decoder.layers.0.0.bias"],
        "decoder.output.weight": state["decoder.layers.1.0.weight"],
        "decoder.output.bias": state["decoder.layers.1.0.bias"],
    }


CONTENDERS: dict[str, Callable[[Task], dict[str, Any]]] = {"ours": ours, "pythae": pythae}


def run(name: str, began: float, **arguments: Any) -> dict[str, Any]:
    """The contender's figures."""
    torch.set_num_threads(1)
    return CONTENDERS[name](Task(**arguments))


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
