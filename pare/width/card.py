"""The model card beside a student's weights: where it comes from, what was cut, what it costs and what that changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def model_card(about: Mapping[str, Any]) -> str:
    """The card as Markdown with the hub's metadata on top; it names models, runs and files, never folders of a machine.

    `about` is the result of `pare prune`: model (identity), mask (file, hash, settings, counts, shapes), qk_norm,
    compensate, parameters, dense_parameters, flops (or None), errors (one dict a block), command, combine, versions.
    """
    base = about["model"]
    name = base.get("model_id") or "unknown"
    lines = [
        *_front_matter(name, about["pipeline_class"]),
        f"# A width-pruned {name}",
        "",
        "Attention heads and feed-forward neurons were removed as PARE does (arXiv 2605.27336); all blocks stay. What is "
        "left are copies of the base model's own matrices: **no recovery training has been done on them.**",
        "",
        *_table(_facts(about)),
        "",
        "## Error of every block",
        "",
        *_errors(about["errors"]),
        "",
        "## Commands",
        "",
        "Made with",
        "",
        *_fenced("bash", about["command"]),
        "",
        "Used with",
        "",
        *_fenced("python", about["use"]),
    ]
    return "\n".join(lines) + "\n"


def _front_matter(name: str, pipeline_class: str) -> list[str]:
    kind = "image-to-video" if "ImageToVideo" in pipeline_class else "text-to-video"
    base = [f"base_model: {name}", "base_model_relation: finetune"] if "/" in name else []
    return ["---", "library_name: diffusers", *base, f"pipeline_tag: {kind}", "tags: [pare, pruned, wan]", "---", ""]


def _facts(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    base, mask = about["model"], about["mask"]
    revision = f", revision {base['revision']}" if base.get("revision") else ""
    config = f", config {str(base.get('config_hash'))[:12]}"
    counts = {part: f"{_range(kept)} of {mask['shapes'][part][1]}" for part, kept in mask["counts"].items()}
    settings = ", ".join(f"{key} {value}" for key, value in mask["settings"].items() if value is not None)
    rows = [
        ("base model", f"{base.get('model_id')}{revision}{config}"),
        ("mask", f"{mask['file']} ({mask['hash'][:12]})"),
        ("mask settings", settings or "none given"),
        ("self-attention heads a block", counts["self_heads"]),
        ("cross-attention heads a block", counts["cross_heads"]),
        ("neurons a block", counts["neurons"]),
        ("query/key norm", about["qk_norm"]),
        ("bias compensation", "yes" if about["compensate"] else "no"),
        ("run of the moments", about["run"].get("name", "none") if about["run"] else "none"),
        ("parameters", f"{about['parameters']:,} of {about['dense_parameters']:,}"),
    ]
    if about["flops"]:
        work, clip = about["flops"], about["flops"]["clip"]
        size = f"{clip['height']} x {clip['width']} pixels, {clip['frames']} video frames"
        rows.append(("FLOPs of one forward", f"{work['student']:.4g} of {work['dense']:.4g} at {size}"))
    rows.append(("made by", ", ".join(f"{name} {number}" for name, number in about["versions"].items())))
    return rows


def _errors(errors: Sequence[Mapping[str, float]]) -> list[str]:
    if not errors:
        return ["Not measured."]
    rows = [
        (str(index), *(f"{each[name]:.2e}" for name in ("masking", "masking_update", "dense_update")))
        for index, each in enumerate(errors)
    ]
    median = {name: float(np.median([each[name] for each in errors])) for name in errors[0]}
    rows.append(("median", *(f"{median[name]:.2e}" for name in ("masking", "masking_update", "dense_update"))))
    return [
        "On one random probe, each block on the input that the base model gives it. `masking`: distance of the block's "
        "output from that of the masked base model, relative to the latter's norm; `masking, update`: the same relative "
        "to what the masked block adds to its input; `dense, update`: distance from the dense block's output, relative "
        "to what that adds.",
        "",
        *_table(rows, ("block", "masking", "masking, update", "dense, update")),
    ]


def _table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...] = ("", "")) -> list[str]:
    cells = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]


def _fenced(language: str, text: str) -> list[str]:
    return [f"```{language}", text, "```"]


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
