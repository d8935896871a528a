"""A beside B as rows of words: what two masks and two models keep, cost and were made with. Pages and reports share them."""

from collections.abc import Callable, Mapping
from typing import Any

from analysis.runs import Run
from pare import cost
from pare.geometry import Clip
from pare.mask import Mask
from workbench.mask_words import PARTS, span
from workbench.model_card import ModelCard
from workbench.plan import gibi, tera

MASK_COLUMNS = ("size", "A", "B", "both", "A alone", "B alone")
MODEL_COLUMNS = ("size", "A", "B", "B / A")


def mask_sizes(a: Mask, b: Mask, found: Mapping[str, Mapping[str, Any]], run: Run | None) -> list[tuple[str, ...]]:
    """Units kept per block and overlap of every part, then parameters and FLOPs of each mask (`MASK_COLUMNS`)."""
    counts, rows = (a.counts(), b.counts()), []
    for part, name in PARTS.items():
        size = getattr(a, part).shape[1]
        kept = [f"{span(each[part])} of {size:,}" for each in counts]
        both = [f"{found[part][key]:,}" for key in ("both", "only_a", "only_b")]
        rows.append((name, *kept, *both))
    for name, key, words in (("parameters", "parameters", lambda n: f"{n:,}"), ("FLOPs per forward", "flops", tera)):
        values = [predicted(each, run).get(key) for each in (a, b)]
        rows.append((name, *("unknown" if value is None else words(value) for value in values), "", "", ""))
    return rows


def predicted(mask: Mask, run: Run | None) -> dict[str, Any]:
    """Parameters and FLOPs that the mask predicts, else those of the open run's model and clip where the mask fits it."""
    told = mask.metadata.get("predicted") or {}
    if "parameters" in told or run is None:
        return dict(told)
    geometry = run.geometry
    fits = mask.self_heads.shape == (geometry.blocks, geometry.heads) and mask.neurons.shape[1] == geometry.ffn
    if not fits:
        return {}
    size = run.manifest.clip
    clip, kept = Clip(size["height"], size["width"], size["frames"]), dict[str, Any](mask.counts())
    return {
        "parameters": cost.parameters(geometry, **kept).total,
        "flops": cost.flops(geometry, clip, **kept).total,
    }


def mask_settings(a: Mask, b: Mask) -> dict[str, tuple[Any, Any]]:
    """What made each mask: name → (of A, of B)."""
    told = [
        {"model": each.metadata.get("model", {}).get("model_id"), **each.metadata.get("settings", {}),
         "run": each.metadata.get("run", {}).get("path")}
        for each in (a, b)
    ]  # fmt: skip
    return _beside(*told)


def model_sizes(a: ModelCard, b: ModelCard) -> list[tuple[str, ...]]:
    """Parameters, operations, bytes and widths of both, with B over A (`MODEL_COLUMNS`)."""
    cards = (a, b)
    numbers: list[tuple[str, str, Callable[[float], str]]] = [
        ("parameters stored", "parameters", lambda n: f"{n:,.0f}"),
        ("parameters active", "active_parameters", lambda n: f"{n:,.0f}"),
        ("blocks of a mean step", "blocks", lambda n: f"{n:.4g}"),
        ("FLOPs of a forward", "flops", tera),
        ("FLOPs, blocks that run", "active_flops", tera),
        ("FLOPs of a video, as sampled", "video_flops", tera),
        ("weights on disk", "weight_bytes", gibi),
        ("bytes a parameter, as stored", "stored_bytes", lambda n: f"{n:.3g}"),
    ]
    rows = []
    for title, name, words in numbers:
        values = [getattr(card, name) for card in cards]
        share = f"{values[1] / values[0]:.0%}" if all(values) else ""
        rows.append((title, *("unknown" if value is None else words(value) for value in values), share))
    for part, title in PARTS.items():
        rows.append((f"{title} in a block", *(span(card.kept[part]) for card in cards), ""))
    return rows


def model_settings(a: ModelCard, b: ModelCard) -> dict[str, tuple[Any, Any]]:
    """What made both: name → (of A, of B)."""
    about = [
        {"base": card.base, "geometry of the base": f"{card.geometry.blocks} blocks, {card.geometry.heads} heads"}
        | (
            {}
            if card.clip is None
            else {"size": f"{card.clip.frames} frames of {card.clip.height} × {card.clip.width}"}
        )
        | dict(card.settings)
        for card in (a, b)
    ]
    return _beside(*about)


def _beside(of_a: Mapping[str, Any], of_b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    values = {name: (of_a.get(name), of_b.get(name)) for name in dict.fromkeys([*of_a, *of_b])}
    return {name: pair for name, pair in values.items() if pair != (None, None)}
