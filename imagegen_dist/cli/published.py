"""Published figures that can be reproduced: their data and source, preparation, machines and measure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from imagegen_dist.cli.catalogue import catalogue
from imagegen_dist.errors import UsageError

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
"""Inception's published weights, as torch-fidelity's release v0.2.0 has them."""

INCEPTION_RELEASES = "https://github.com/toshas/torch-fidelity/releases/download"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

_R3GAN = "arXiv:2501.05441"
_GB = 10**9


@dataclass(frozen=True)
class Published:
    """How a preset's published figure comes about, from the data to the number.

    data: shell lines that fetch the source into the working directory. pack: SOURCE and flags of `imagegen data pack`.
    gpus: what the paper's code trains on.
    """

    figure: str
    paper: str
    dataset: str
    samples: int
    place: str
    terms: str
    source_bytes: int
    data: tuple[str, ...]
    pack: tuple[str, ...]
    preparation: str
    gpus: int
    metrics: str = "fid"
    generated: int = 50_000


def _ffhq(side: int, figure: str) -> Published:
    return Published(
        figure=f"FID {figure} on FFHQ {side}×{side}",
        paper=_R3GAN,
        dataset="ffhq",
        samples=70_000,
        place="https://github.com/NVlabs/ffhq-dataset",
        terms="CC BY-NC-SA 4.0, non-commercial; each picture has its own licence",
        source_bytes=round(89.1 * _GB),
        data=(
            "git clone https://github.com/NVlabs/ffhq-dataset",
            "(cd ffhq-dataset && python download_ffhq.py --json --images)",
        ),
        pack=("ffhq-dataset/images1024x1024", "--labels", "none", *_filtered(side)),
        preparation=(
            "All 70,000 pictures of 1024×1024 are resized by Pillow's Lanczos filter, as the preparation of StyleGAN3 "
            "and EDM does, which the paper's code names."
        ),
        gpus=8,
    )


def _imagenet(side: int, figure: str, gpus: int) -> Published:
    return Published(
        figure=f"FID {figure} on ImageNet {side}×{side}",
        paper=_R3GAN,
        dataset="imagenet",
        samples=1_281_167,
        place="https://www.kaggle.com/competitions/imagenet-object-localization-challenge",
        terms="non-commercial research and education, after agreeing to ImageNet's terms",
        source_bytes=round(155 * _GB),
        data=(
            "kaggle competitions download -c imagenet-object-localization-challenge",
            "unzip -q imagenet-object-localization-challenge.zip \\\n    'ILSVRC/Data/CLS-LOC/train/*'",
        ),
        pack=("ILSVRC/Data/CLS-LOC/train", "--channels", "3", "--icc", "keep", *_filtered(side)),
        preparation=(
            "The middle square of each training picture is resized by Pillow's Lanczos filter, as EDM's preparation "
            "does, which the paper's code names. The downsampled ImageNet of arXiv:1707.08819, with which other papers "
            "took their figures, squeezes whole pictures by the box filter: take --crop none --filter box for it, and "
            "compare figures of one preparation only."
        ),
        gpus=gpus,
    )


def _filtered(side: int) -> tuple[str, ...]:
    return ("--size", f"{side}x{side}", "--filter", "lanczos")


PUBLISHED = {
    "r3gan-cifar10": Published(
        figure="FID 1.96 on CIFAR-10",
        paper=_R3GAN,
        dataset="cifar10",
        samples=50_000,
        place="https://www.cs.toronto.edu/~kriz/cifar.html",
        terms="no licence is stated; cite Krizhevsky's report of 2009",
        source_bytes=170_052_171,
        data=(
            "curl -LO https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "echo 'c32a1d4ab5d03f1284b67883e8d87530  cifar-10-binary.tar.gz' | md5sum --check",
            "tar -xzf cifar-10-binary.tar.gz",
        ),
        pack=("cifar-10-batches-bin/data_batch_*.bin",),
        preparation="The five training batches are taken as they are: nothing is resized.",
        gpus=2,
    ),
    "r3gan-ffhq64": _ffhq(64, "1.95"),
    "r3gan-ffhq256": _ffhq(256, "2.75"),
    "r3gan-imagenet32": _imagenet(32, "1.27", 32),
    "r3gan-imagenet64": _imagenet(64, "2.09", 64),
}
"""By preset."""


def preset_named(text: str) -> str:
    """The preset that a name means, also without r3gan- and with other hyphens: ffhq-64 is r3gan-ffhq64.

    Raises UsageError for a name that is no preset, and for a preset without a published figure.
    """
    short = {_short(name): name for name in PUBLISHED}
    if found := short.get(_short(text)):
        return found
    if text in catalogue()["presets"]:
        raise UsageError(
            f"{text} has no published figure that its own data, training and measure would reproduce; these presets "
            f"have one: {', '.join(PUBLISHED)}"
        )
    close = difflib.get_close_matches(_short(text), short, n=1)
    said = f"did you mean {short[close[0]]}?" if close else f"there are {', '.join(PUBLISHED)}"
    raise UsageError(f"there is no preset {text!r} with a published figure; {said}")


def _short(name: str) -> str:
    return name.lower().removeprefix("r3gan-").replace("-", "")
