"""The model card: what a model is, its training data, training procedure and cost, and its metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imagegen_dist import config
from imagegen_dist.conditions.part import Conditions, Part
from imagegen_dist.extras import install_anywhere
from imagegen_dist.metric_table import EVALUATION, describe
from imagegen_dist.metrics.formatting import count, duration, figure_lines
from imagegen_dist.presets import PRESETS
from imagegen_dist.records import ungrouped
from imagegen_dist.shape import SampleShape
from imagegen_dist.wording import counted

_MOST_NAMES = 100  # of classes


@dataclass(frozen=True)
class Card:
    """The contents of a card."""

    # Facts of the checkpoint.
    facts: Mapping[str, Any]
    # Metrics by plain name, of this checkpoint or the last before it.
    figures: Mapping[str, Any] = field(default_factory=dict)
    # The run's config.json; empty if it is not available.
    run: Mapping[str, Any] = field(default_factory=dict)
    # Trainable parameters of each network.
    parameters: Mapping[str, int] = field(default_factory=dict)
    # Identifier of the weights' licence; empty if not stated.
    licence: str = ""


def write_card(card: Card) -> str:
    """README.md with the metadata that the Hugging Face Hub reads."""
    facts = card.facts
    kind = str(facts["experiment"]["objective"]["kind"])
    model = str(facts["experiment"]["model"]["kind"])
    family = "GAN" if kind == "gan" else "VAE"
    of_pictures = facts["data"]["modality"] == "image"  # the Hub has no tag for other samples without a text
    head = {
        "license": card.licence or "unknown",
        "library_name": "imagegen_dist",
        **({"pipeline_tag": "unconditional-image-generation"} if of_pictures else {}),
        "tags": ["imagegen_dist", family.lower(), model],
    }
    sections = [
        f"# {family} ({model}), {_shape(_sampled(facts))}",
        "![Samples](samples.png)",
        _use(facts, family),
        _section("Data", _data(facts, card.run)),
        _section("Figures", _figures(card)),
        _section("Recipe", _recipe(card)),
        _section("Cost", _cost(card)),
        _section("Licence", _licence(card)),
    ]
    return f"---\n{_yaml(head)}---\n\n" + "\n\n".join(sections) + "\n"


def _yaml(values: Mapping[str, str | Sequence[str]]) -> str:
    """Minimal YAML of plain strings."""
    lines = []
    for name, value in values.items():
        if isinstance(value, str):
            lines.append(f"{name}: {value}\n")
        else:
            lines.append(f"{name}:\n" + "".join(f"- {each}\n" for each in value))
    return "".join(lines)


def _section(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines)


def _shape(facts: Mapping[str, Any]) -> str:
    return str(config.decode(SampleShape, facts["data"]["shape"]))


def _sampled(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts that have the shape of what the model generates: those of the autoencoder of its latents, if any."""
    latents = facts.get("latents")
    return facts if latents is None else latents["autoencoder"]


def _use(facts: Mapping[str, Any], family: str) -> str:
    told = facts["experiment"]["data"]["conditional"]
    known = facts["data"].get("class_names") or [0, 1]
    classes = f", classes={json.dumps(known[:2], ensure_ascii=False)}" if told and facts["data"]["classes"] else ""
    if told and (conditions := _conditions(facts)):
        classes = f", conditions={_example(conditions.parts[0])}"
    lines = [
        f"imagegen_dist is not on a package index: install it by {install_anywhere('export')}.",
        "",
        "    import imagegen_dist",
        "",
        '    model = imagegen_dist.load("path or URL of this folder")',
        f"    samples = model.sample(16{classes}, seed=0)      # uint8 [16, C, *S]; equal for a seed on any machine",
    ]
    if family == "VAE":
        label = ", label" if classes else ""
        lines.append(f"    z = model.encode(samples{label}); samples = model.decode(z{label})")
    lines += [
        "",
        "or from the Hub:",
        "",
        "    from imagegen_dist.inference.hub import HubModel",
        "",
        '    model = HubModel.from_pretrained("USER/NAME")',
    ]
    return "\n".join(lines)


def _data(facts: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    data = facts["data"]
    classes = counted(data["classes"], "class") if data["classes"] else "no classes"
    if conditions := _conditions(facts):
        classes = f"conditions {conditions.describe()}"
    name = str(facts["experiment"]["data"]["url"]).rstrip("/").rpartition("/")[2]
    names = data.get("class_names")
    return [
        f"{counted(data['samples'], 'sample')} of {_shape(facts)} ({data['modality']}), {classes}: `{name}`.",
        *_latents(facts),
        *([f"The classes, numbered from 0: {_some_names(names)}."] if names else []),
        f"Fingerprint of the dataset (SHA-256 over its index): `{data['fingerprint']}`.",
    ]


def _latents(facts: Mapping[str, Any]) -> list[str]:
    """What was encoded, for a model that was trained on latents."""
    known = facts.get("latents")
    if known is None:
        return []
    about = known["autoencoder"]
    return [
        f"They are latents of {_shape(about)}; the decoder that these weights contain makes samples of this shape. The "
        f"SHA-256 of the autoencoder's weights: `{about['sha256']}`."
    ]


def _conditions(facts: Mapping[str, Any]) -> Conditions | None:
    """The parts of the data's conditions, if it has any."""
    payload = facts["data"].get("conditions")
    return None if payload is None else Conditions.from_payload(payload)


def _example(part: Part) -> str:
    """A value for a part, as Python."""
    if part.kind == "vector":
        value: Any = round(part.mean[0], 3) if part.size == 1 else [round(each, 3) for each in part.mean]
    else:
        value = part.names[0] if part.names else True
    return json.dumps({part.name: value}, ensure_ascii=False).replace("true", "True")


def _some_names(names: Sequence[str]) -> str:
    """The first names of many, each as code, so that none is interpreted as Markdown."""
    shown = ", ".join(f"`{' '.join(str(name).split()).replace('`', chr(39))}`" for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES:,} more, in config.json" if len(names) > _MOST_NAMES else "")


def _figures(card: Card) -> list[str]:
    """Every metric with its reference, and what they depend on."""
    lines = figure_lines({EVALUATION + name: value for name, value in ungrouped(card.figures).items()})
    if not lines:
        return ["None were computed."]
    table = ["| | | |", "|---|---|---|"]
    for line in lines:
        meaning = describe(line.name).meaning
        label = f"{line.label}: {meaning}" if meaning else line.label
        table.append(f"| {label} | {line.full_value} | {line.direction} |")
    evaluation = card.facts["experiment"]["evaluation"]
    said = f"Computed from {counted(evaluation['samples'], 'sample')} each, with averaged weights."
    if any("frechet" in line.name for line in lines):
        said += f" {_features(evaluation)}"
    return [*table, "", said]


def _features(evaluation: Mapping[str, Any]) -> str:
    """The feature network of the Fréchet distances."""
    features = str(evaluation.get("features") or "classifier")
    if features == "classifier":
        return (
            "Fréchet distances use the features of a small classifier trained on the dataset's own labels "
            f"({evaluation['classifier_images']:,} images), against all training samples: they are not FIDs, and "
            "comparable only between models of this dataset."
        )
    kind = " (FIDs)" if features == "inception" else ""
    weights = str(evaluation.get("weights_sha256") or "")
    known = f", weights with SHA-256 `{weights}`" if weights else ""
    resized = f", resize `{evaluation['resize']}`" if evaluation.get("resize") else ""
    return f"Fréchet distances{kind} use the features of `{features}`{known}{resized}, against all training samples."


def _recipe(card: Card) -> list[str]:
    facts = card.facts
    experiment = facts["experiment"]
    training = experiment["training"]
    lines = [f"Preset `{facts.get('preset', '')}` of imagegen_dist."]
    if preset := PRESETS.get(str(facts.get("preset", ""))):
        lines.append(preset.source)
    lines.append(
        f"Batches of {training['batch_size']} in microbatches of {training['microbatch_size']}, seed "
        f"{training['seed']}; {'bfloat16 autocast' if training['bf16'] else 'float32'}. config.json has every setting."
    )
    if commit := card.run.get("git_commit"):
        lines.append(f"Trained at commit `{commit}`.")
    if versions := facts.get("versions"):
        lines.append(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    return lines


def _cost(card: Card) -> list[str]:
    facts = card.facts
    lines = [f"{counted(int(facts['images']), 'image')} seen."]
    if seconds := facts.get("seconds"):
        workers = int(facts.get("world_size", 1))
        launch = card.run.get("launch", {})
        machine = " with one GPU each" if launch.get("gpu") else " without a GPU" if launch else ""
        lines.append(f"{duration(float(seconds))} of training on {counted(workers, 'worker')}{machine}.")
    if card.parameters:
        sizes = ", ".join(f"{name} {count(number)}" for name, number in card.parameters.items())
        lines.append(f"Parameters: {sizes}.")
    return lines


def _licence(card: Card) -> list[str]:
    if card.licence:
        return [f"The weights: {card.licence}. The terms of the training data apply in addition."]
    return ["Not stated by the exporter of this model; the terms of its training data apply. The code is Apache-2.0."]
