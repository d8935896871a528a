"""Trainings, samples and students as files alone: what the app reads, without a model or torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pare.geometry import DEMO, Geometry, read_geometry, read_json
from pare.reference import model_identity
from pare.video import write_video

SIGMAS = (0.2, 0.8)


def make_samples(folder: Path, count: int = 12) -> Path:
    """An index of samples that the demo encoded; the shards are missing."""
    clip = {name: read_json(DEMO / "defaults.json")[name] for name in ("height", "width", "frames", "fps")}
    about = {
        "schema": "pare-latents/1",
        "model": model_identity("demo"),
        "clip": clip,
        "captions": ["a red 7"] * count,
        "source": {"name": "moving digits", "samples": count},
    }
    folder.mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps(about))
    return folder


def make_student(folder: Path, **more: Any) -> Path:
    """A student's configs, one head of every block cut; the weights are missing."""
    config = read_json(DEMO / "transformer" / "config.json") | {"_class_name": "PareWanTransformer3DModel"}
    blocks, heads = config["num_layers"], config["num_attention_heads"]
    config |= {"self_heads": [heads - 1] * blocks, "kept_self_heads": [list(range(1, heads))] * blocks, **more}
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    index = read_json(DEMO / "model_index.json") | {"transformer": ["pare.transformer", "PareWanTransformer3DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def log_lines(steps: int, every: int = 1, stage: str = "width") -> list[dict[str, Any]]:
    """What the loop logs, the loss halving every 10 steps."""
    lines = []
    for step in range(every, steps + 1, every):
        loss = 2.0 * 0.5 ** (step / 10)
        line = {
            "step": step,
            "loss": loss,
            "feature": loss / 20,
            "teacher": loss / 10,
            "data": loss / 5,
            "temporal": loss / 30,
        }
        line |= {"blocks_run": 5.5} if stage == "joint" else {}
        lines.append({**line, "gradient_norm": 0.5, "learning_rate": 1e-4, "seconds": 0.1 * step})
    return lines


def validation(step: int, n: int = 4) -> dict[str, Any]:
    """What a validation logs."""
    found: dict[str, Any] = {"n": n, "clips": 2, "roles": 2}
    found |= {"oracle digit": 0.5, "oracle digit n": 2, "oracle consistency": 0.83, "oracle consistency n": 2}
    for against, mean in (("data", 0.4), ("teacher", 0.1)):
        for sigma in SIGMAS:
            found |= {
                f"{against} error at sigma {sigma}": mean / step,
                f"{against} error at sigma {sigma} standard error": 0.01,
            }
    return {"step": step, "validation": found}


def make_training(
    folder: Path,
    *,
    stage: str = "width",
    steps: int = 20,
    done: int = 20,
    validated: tuple[int, ...] = (),
    student: bool = False,
) -> Path:
    """A training under `folder/training`, logged up to step `done`, with validations, clips and roles at `validated`."""
    training, geometry = folder / "training", read_geometry(DEMO)
    training.mkdir(parents=True)
    about = {
        "schema": "pare-training/1",
        "stage": stage,
        "model": model_identity("demo"),
        "student": "pruned",
        "student_config": "0" * 16,
        "data": {"name": "moving digits", "samples": 12, "hash": "0" * 16},
        "run": None,
        "settings": {"train_steps": steps, "batch": 4, "accumulation": 2, "learning_rate": 1e-4, "warmup": 5, "seed": 0,
                     "router": "learned", "router_rate": 5e-4},
        "processes": 1,
        "versions": {"torch": "0"},
    }  # fmt: skip
    (training / "training.json").write_text(json.dumps(about))
    lines = log_lines(done, stage=stage) + [validation(step) for step in validated]
    (training / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    frames = np.zeros((5, 16, 16, 3), np.uint8)
    names = [f"{step:06d}" for step in validated]
    for name in [*names, *(["teacher"] if names else [])]:
        for number in range(2):
            frames[:, number] = 40 * number + len(name)
            about = {"prompt": "a red 7", "seed": number}
            write_video(frames, training / "clips" / f"{name}-{number}.mp4", 8, about)
        make_roles(training, name, geometry, routed=stage == "joint" and name != "teacher")
    if student:
        make_student(folder)
    return training


def make_roles(training: Path, name: str, geometry: Geometry, *, routed: bool) -> None:
    """Ratios of 2 samples: the teacher's first head of every block is spatial, of the student mixed, another one is cut."""
    ratio = np.full((2, len(SIGMAS), geometry.blocks, geometry.heads), 0.5, np.float32)
    ratio[..., 0] = 0.9
    ratio[..., 1] = 0.1
    if name != "teacher":
        ratio[..., 0] = 0.55
        ratio[..., 2] = np.nan
    arrays = {"self/ratio": ratio}
    if routed:
        ran = np.ones((2, len(SIGMAS), geometry.blocks), bool)
        ran[0, 0, 1] = False
        arrays["router/ran"] = ran
    about = {"schema": "pare-roles/1", "sigmas": list(SIGMAS), "samples": [10, 11]}
    (training / "roles").mkdir(exist_ok=True)
    save_file(arrays, training / "roles" / f"{name}.safetensors", metadata={"pare": json.dumps(about)})
