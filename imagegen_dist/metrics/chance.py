"""Whether a classifier recognises more than chance would: if not, figures that it gives say nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_SHARE = 0.1  # of the way from chance to perfection, below which a classifier is near chance
_CHANCE = "chance"

_REMEDY = "raise --evaluation.classifier-images, check the labels, or name another network by --evaluation.features"


def is_near_chance(found: float, chance: float) -> bool:
    """True if a share or an R² is no more than a tenth of the way from chance to 1. A nan is."""
    return not found - chance > _SHARE * (1 - chance)


def doubts(
    accuracy: float | None, chance: float | None, recognised: Mapping[str, float], chances: Mapping[str, float]
) -> dict[str, float]:
    """What a classifier recognises hardly better than chance, each figure with its chance; {} for a good one.

    accuracy, chance: of classes, or None. recognised: of conditions, as `Recognition.figures`; chances: of these by the
    same names, 0 for others.
    """
    found: dict[str, float] = {}
    if accuracy is not None and chance is not None and is_near_chance(accuracy, chance):
        found |= {"classifier_accuracy": accuracy, "classifier_chance": chance}
    for name, value in recognised.items():
        group, _, member = name.partition("/")
        if is_near_chance(value, by_chance := chances.get(name, 0.0)):
            found |= {f"{group}_real/{member}": value, f"{group}_{_CHANCE}/{member}": by_chance}
    return found


def chance_warnings(figures: Mapping[str, float]) -> list[str]:
    """What `doubts` found among the figures of an evaluation, by plain name: one line each, to be read beside them."""
    lines = []
    chance, accuracy = figures.get("classifier_chance"), figures.get("classifier_accuracy")
    if chance is not None and accuracy is not None:
        lines.append(
            f"the classifier recognises {accuracy:.1%} of real samples, and always naming the most frequent class "
            f"{chance:.1%}: figures in its features, the Fréchet distance and label agreement among them, say nothing "
            f"of these samples; {_REMEDY}"
        )
    if parts := list(_parts(figures)):
        lines.append(
            f"the classifier does not recognise {', '.join(parts)} of real samples better than chance: how well "
            f"samples follow them is not known; {_REMEDY}"
        )
    return lines


def _parts(figures: Mapping[str, float]) -> Iterator[str]:
    for name, chance in figures.items():
        group, _, member = name.partition("/")
        if not member or not group.endswith(f"_{_CHANCE}"):
            continue
        kind = group.removesuffix(f"_{_CHANCE}")
        value = figures.get(f"{kind}_real/{member}")
        if value is not None:
            said = f"R² {value:.2f}" if kind == "r2" else f"{value:.1%}, by chance {chance:.1%}"
            yield f"{member} ({said})"
