"""What is known of every metric, once: console, report, model card, W&B, result tables and sweeps read it here.

A metric of your own is one `register(Metric(...))` in the module that computes it. A metric that is not registered is
shown under its own name, as a plain number without a direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["higher", "lower", "neither"]
Form = Literal["number", "share", "count"]
Section = Literal["evaluation", "training", "infrastructure"]

EVALUATION = "eval/"
"""The group of what an evaluation measures; result.json, tables and flags leave it out."""

GROUPS = {
    "eval": "Evaluation",
    "loss": "Losses",
    "logits": "Logits",
    "penalty": "Penalties",
    "recognition": "Recognition",
    "augmentation": "Augmentation",
    "vae": "Rate and distortion",
    "tc_discriminator": "Total-correlation discriminator",
    "optim": "Optimizers",
    "train": "Training",
    "data": "Data",
    "system": "System",
}
"""Titles of the groups, in the order in which a report shows them."""

_INFRASTRUCTURE = ("optim", "train", "data", "system")


@dataclass(frozen=True)
class Metric:
    """One metric, or a family of them whose name ends in `*`."""

    name: str
    """As metrics.jsonl has it, "group/name"."""
    label: str = ""
    """In tables; {} is what `*` stands for. Empty: the name in words."""
    better: Direction = "neither"
    """Which direction is better."""
    unit: str = ""
    """Unit, or empty."""
    form: Form = "number"
    """A share from 0 to 1 is shown in percent, a count as a whole number."""
    reference: str = ""
    """Name of the metric whose value this one is compared with; of a family, another family, by the same member."""
    reference_label: str = "held-out real samples"
    """What the reference is a value of."""
    meaning: str = ""
    """One phrase for the model card and the documentation, where the label does not say it all."""
    needs: str = ""
    """What an objective must offer for it: generates, autoencodes; empty for every objective."""
    headline: bool = False
    """True if a report may show it among its large figures."""

    @property
    def group(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]

    @property
    def plain(self) -> str:
        """The name without its group."""
        return self.name.partition("/")[2]

    @property
    def words(self) -> str:
        """The plain name in words, as consoles and legends show it: "system/images_per_s" -> "images/s"."""
        return self.plain.replace("_per_", "/").replace("_", " ") or self.name

    @property
    def section(self) -> Section:
        """Where it belongs."""
        if f"{self.group}/" == EVALUATION:
            return "evaluation"
        return "infrastructure" if self.group in _INFRASTRUCTURE else "training"


_TABLE: dict[str, Metric] = {}


def register(*metrics: Metric) -> None:
    """Add metrics to the table.

    Raises ValueError for a name without a group, and where another metric of that name is registered.
    """
    for metric in metrics:
        if not metric.group or not metric.plain:
            raise ValueError(f"metric {metric.name!r} has no group; write GROUP/NAME, for an evaluation eval/NAME")
        if _TABLE.setdefault(metric.name, metric) != metric:
            raise ValueError(f"another metric {metric.name!r} is registered; choose another name")


def registered() -> list[Metric]:
    """Every entry, in the order in which tables show them."""
    return list(_TABLE.values())


def entry_of(name: str) -> Metric | None:
    """The entry of a metric, given by its full name: its own, else that of the family with the longest prefix."""
    if name in _TABLE:
        return _TABLE[name]
    families = [each for each in _TABLE if each.endswith("*") and name.startswith(each[:-1])]
    return _TABLE[max(families, key=len)] if families else None


def describe(name: str) -> Metric:
    """What is known of a metric, given by its full name; a member of a family has its own name and label."""
    entry = entry_of(name) or Metric(name)
    member = name[len(entry.name) - 1 :] if entry.name.endswith("*") else ""
    described = replace(
        entry, name=name, label=entry.label.format(member), reference=entry.reference.replace("*", member)
    )
    return described if described.label else replace(described, label=described.words.replace("/", ", "))


def place_of(name: str) -> int:
    """Where a metric comes in tables, by its full name; those that are not registered come last."""
    entry = entry_of(name)
    return list(_TABLE).index(entry.name) if entry else len(_TABLE)


_NATS = "nats per sample"
_REAL = "eval/frechet_real"
_WEIGHTLESS = (
    ("content", "content", "random 2-D features of every frame, averaged: blind to time"),
    ("space_time", "space and time", "random 3-D features of the whole clip"),
    ("motion", "motion", "velocity and acceleration of the centre of brightness"),
    ("volume", "volumes", "random 3-D features of the whole volume"),
    ("planes", "slices", "random 2-D features of the slices along each axis, averaged"),
)

register(
    # Samples.
    Metric("eval/frechet", "Fréchet distance", "lower", reference=_REAL, needs="generates", headline=True),
    Metric(_REAL, "Fréchet distance of held-out real samples"),
    Metric("eval/fid", "FID", "lower", meaning="Fréchet distance in Inception's features", needs="generates"),
    Metric("eval/kid", "KID", "lower", meaning="kernel distance in Inception's features", needs="generates"),
    Metric("eval/fd_dinov2", "FD-DINOv2", "lower", meaning="Fréchet distance in DINOv2's features", needs="generates"),
    Metric("eval/kd_dinov2", "KD-DINOv2", "lower", meaning="kernel distance in DINOv2's features", needs="generates"),
    Metric("eval/kernel_distance", "kernel distance", "lower", needs="generates"),
    Metric("eval/precision", "precision", "higher", needs="generates"),
    Metric("eval/recall", "recall", "higher", needs="generates"),
    Metric("eval/density", "density", "higher", needs="generates"),
    Metric("eval/coverage", "coverage", "higher", needs="generates"),
    Metric("eval/inception_score", "inception score", "higher", needs="generates"),
    Metric(
        *("eval/class_score", "class score", "higher"),
        meaning="inception score by a classifier of the dataset's own labels",
        needs="generates",
    ),
    # Reconstructions.
    Metric(
        *("eval/frechet_reconstruction", "reconstruction Fréchet distance", "lower"),
        reference=_REAL,
        needs="autoencodes",
        headline=True,
    ),
    Metric("eval/fid_reconstruction", "rFID", "lower", meaning="FID of reconstructions", needs="autoencodes"),
    Metric("eval/fd_dinov2_reconstruction", "reconstruction FD-DINOv2", "lower", needs="autoencodes"),
    Metric(
        *("eval/modes", "modes", "higher"),
        form="count",
        reference="eval/modes_of_data",
        reference_label="classes of the data",
        meaning="classes that samples cover",
        needs="generates",
        headline=True,
    ),
    Metric("eval/modes_of_data", "classes of the data", form="count"),
    Metric(
        *("eval/modes_kl", "KL of modes", "lower", "nats"),
        reference="eval/modes_kl_perfect",
        reference_label="a perfect sampler",
        meaning="KL divergence of the samples' classes from the data's",
        needs="generates",
    ),
    Metric("eval/modes_kl_perfect", "KL of a perfect sampler's modes", unit="nats"),
    Metric(
        *("eval/label_agreement", "label agreement", "higher"),
        form="share",
        reference="eval/classifier_accuracy",
        meaning="share of samples that a classifier takes for the requested class",
        needs="generates",
        headline=True,
    ),
    Metric("eval/classifier_accuracy", "the classifier's accuracy", form="share"),
    Metric("eval/classifier_chance", "the classifier's accuracy by chance", form="share"),
    Metric("eval/agreement_chance/*", "agreement of {} by chance", form="share"),
    Metric("eval/accuracy_chance/*", "accuracy of {} by chance", form="share"),
    Metric("eval/r2_chance/*", "R² of {} by chance"),
    # Videos and volumes, in features that need no weights.
    *(
        Metric(
            *(f"eval/{distance}_{kind}", f"{label} of {of}", "lower"),
            reference=f"eval/{distance}_{kind}_real",
            meaning=meaning,
            needs="generates",
            headline=distance == "frechet" and kind != "content",
        )
        for distance, label in (("frechet", "Fréchet distance"), ("kernel", "kernel distance"))
        for kind, of, meaning in _WEIGHTLESS
    ),
    *(
        Metric(f"eval/{distance}_{kind}_real", f"{label} of {of} of held-out real samples")
        for distance, label in (("frechet", "Fréchet distance"), ("kernel", "kernel distance"))
        for kind, of, _ in _WEIGHTLESS
    ),
    *(
        Metric(
            *(f"eval/frechet_{kind}_reconstruction", f"reconstruction Fréchet distance of {of}", "lower"),
            reference=f"eval/frechet_{kind}_real",
            needs="autoencodes",
        )
        for kind, of, _ in _WEIGHTLESS
    ),
    Metric("eval/jedi", "kernel distance by JEDi's estimator", "lower", needs="generates"),
    Metric("eval/fvd", "FVD in your own network's features", "lower", needs="generates"),
    # Named conditions, part by part.
    Metric(
        *("eval/agreement/*", "agreement of {}", "higher"),
        form="share",
        reference="eval/agreement_real/*",
        meaning="share of samples whose class of this part is recognised as the requested one",
        needs="generates",
    ),
    Metric("eval/agreement_real/*", "agreement of {} of held-out samples", form="share"),
    Metric(
        *("eval/accuracy/*", "accuracy of {}", "higher"),
        form="share",
        reference="eval/accuracy_real/*",
        meaning="share of samples whose attribute is recognised as requested, present or absent",
        needs="generates",
    ),
    Metric("eval/accuracy_real/*", "accuracy of {} of held-out samples", form="share"),
    Metric(
        *("eval/r2/*", "R² of {}", "higher"),
        reference="eval/r2_real/*",
        meaning="coefficient of determination between requested and recognised numbers",
        needs="generates",
    ),
    Metric("eval/r2_real/*", "R² of {} of held-out samples"),
    *(
        Metric(f"eval/{name}_{where}{more}", f"{label} {where} {of}", "lower", needs="generates")
        for name, label in (("frechet", "Fréchet distance"), ("fid", "FID"), ("fd_dinov2", "FD-DINOv2"))
        for where in ("within", "across")
        for more, of in (("", "classes"), ("/*", "{}"))
    ),
    Metric("eval/elbo", "ELBO", "higher", _NATS, needs="autoencodes", headline=True),
    Metric("eval/distortion", "distortion", "lower", _NATS, needs="autoencodes"),
    Metric("eval/rate", "rate", unit=_NATS, needs="autoencodes"),
    Metric("eval/rate_level_*", "rate of level {}", unit=_NATS, needs="autoencodes"),
    Metric("eval/rate_of_latent/*", "rate of latent {}", unit=_NATS, needs="autoencodes"),
    Metric("eval/log_likelihood", "log-likelihood", "higher", _NATS, needs="autoencodes"),
    Metric("eval/bits_per_dim", "bits per dimension", "lower", "bits", needs="autoencodes"),
    Metric("eval/active_units", "active latents", "higher", form="count", needs="autoencodes"),
    # Disentanglement, where the samples' factors are known.
    Metric("eval/mig", "MIG", "higher", meaning="mutual information gap", needs="autoencodes", headline=True),
    Metric(
        *("eval/mig_quantile", "MIG by quantiles", "higher"),
        meaning="mutual information gap, latents in bins of equally many samples",
        needs="autoencodes",
    ),
    Metric("eval/factor_vae", "FactorVAE score", "higher", needs="autoencodes"),
    Metric("eval/beta_vae", "BetaVAE score", "higher", needs="autoencodes"),
    Metric("eval/sap", "SAP score", "higher", needs="autoencodes"),
    Metric("eval/dci_disentanglement", "DCI disentanglement", "higher", needs="autoencodes"),
    Metric("eval/dci_completeness", "DCI completeness", "higher", needs="autoencodes"),
    Metric("eval/dci_informativeness", "DCI informativeness", "higher", needs="autoencodes"),
    Metric("eval/psnr", "PSNR", "higher", "dB", needs="autoencodes", headline=True),
    Metric("eval/ssim", "SSIM", "higher", needs="autoencodes"),
    Metric("eval/ms_ssim", "MS-SSIM", "higher", needs="autoencodes"),
    Metric("eval/ms_ssim_*", "MS-SSIM of {} scales", "higher", needs="autoencodes"),
    Metric("eval/dice", "Dice of reconstructions", "higher", needs="autoencodes"),
    Metric(
        *("eval/motion_error", "motion error of reconstructions", "lower", "pixels per frame"),
        meaning="distance of the velocities of the centre of brightness from the original's",
        needs="autoencodes",
    ),
    Metric(
        *("eval/reconstruction_agreement", "agreement of reconstructions", "higher"),
        form="share",
        reference="eval/classifier_accuracy",
        meaning="share of reconstructions that a classifier takes for the original's class",
        needs="autoencodes",
    ),
    # Copying, if training samples are searched for copies.
    Metric(
        *("eval/authenticity", "authenticity", "higher"),
        form="share",
        reference="eval/authenticity_real",
        meaning="share of samples farther from the nearest training sample than that one from the next",
        needs="generates",
        headline=True,
    ),
    Metric("eval/authenticity_real", "authenticity of held-out samples", form="share"),
    Metric(
        *("eval/copied", "copied", "lower"),
        form="share",
        reference="eval/copied_real",
        meaning="share of samples that single out one training sample",
        needs="generates",
    ),
    Metric("eval/copied_real", "held-out samples that single one out", form="share"),
    Metric("eval/copied_z", "copied z", meaning="z-score of the difference in copied samples", needs="generates"),
    Metric(
        *("eval/copying_z", "copying z"),
        meaning="copying statistic z; far below 0 if samples copy training samples",
        needs="generates",
    ),
    Metric(
        *("eval/farther", "farther from the data"),
        form="share",
        meaning="probability that a sample is farther from the data than a held-out one; 50% where they are alike",
        needs="generates",
    ),
    # Training.
    Metric("loss/*", "{} loss"),
    Metric("logits/*", "logits of {} samples"),
    Metric(
        *("recognition/*", "recognition loss of {} samples", "lower", _NATS),
        meaning="mean loss of the auxiliary classifier",
    ),
    Metric("augmentation/p", "probability of augmentation", form="share"),
    Metric(
        *("augmentation/overfitting", "overfitting of the discriminator"),
        meaning="0 if held-out samples look like training samples to it, 1 if they look like generated ones",
    ),
    Metric("tc_discriminator/accuracy", "accuracy of the total-correlation discriminator", form="share"),
    Metric("vae/rate", "rate", unit=_NATS, needs="autoencodes"),
    Metric("vae/distortion", "distortion", "lower", _NATS, needs="autoencodes"),
    # Infrastructure.
    Metric("optim/lr_*", "learning rate of {}"),
    Metric("train/skipped_steps", "skipped steps", "lower", "steps", "count"),
    Metric("data/epoch", "epoch", unit="epochs"),
    Metric("data/bytes_per_s", "data read", "higher", "bytes/s"),
    Metric("data/wait_fraction", "time spent waiting for data", "lower", form="share"),
    Metric("system/images_per_s", "throughput", "higher", "images/s"),
    Metric("system/evaluation_s", "time of an evaluation", "lower", "s"),
)
