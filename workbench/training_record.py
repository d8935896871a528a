"""A training as it lies on disk, running or not: what was asked, its curves, its validations' clips, roles and routes.

No torch: the app reads it while the worker writes. Whatever is torn, missing or foreign is left out and said so.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from pare.errors import InputError
from pare.files import lies_inside
from pare.training.log import LOG, parse_log

SCHEMA, RECORD = "pare-training/1", "training.json"
TEACHER = "teacher"
NOT_LOSSES = ("step", "seconds", "gradient_norm", "learning_rate", "blocks_run")
FACTORS = ("digit", "colour", "direction", "speed", "consistent")
"""What the oracle answers with yes or no; its consistency itself is no share."""
_ERROR = re.compile(r"(data|teacher) error at sigma (\S+)")


@dataclass(frozen=True, eq=False)
class Training:
    """One training: its folder (`OUT/training`), its `training.json`, and the records of its log."""

    folder: Path
    about: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]
    torn: int

    @classmethod
    def open(cls, folder: str | Path) -> "Training":
        """Read a training folder. Raises `InputError` where training.json is missing, unreadable or of another kind."""
        folder = Path(folder)
        path = folder / RECORD
        fix = "train into another folder; this one cannot be read"
        try:
            about = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(str(path), got=error, expected="the record of a training", fix=fix) from None
        parts = ("settings", "model", "data")
        whole = isinstance(about, dict) and all(isinstance(about.get(name), dict) for name in parts)
        if not whole or about.get("schema") != SCHEMA:
            raise InputError(str(path), got="another JSON", expected=f"one of schema {SCHEMA}", fix=fix)
        log = folder / LOG
        records, torn = parse_log(log.read_text("utf-8", errors="replace")) if log.is_file() else ([], 0)
        return cls(folder, about, tuple(records), torn)

    @property
    def stage(self) -> str:
        """width, joint or steps."""
        return str(self.about.get("stage"))

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.about["settings"]

    @property
    def student(self) -> Path | None:
        """The folder of the trained student; None until it is written."""
        out = self.folder.parent
        return out if (out / "transformer" / "config.json").is_file() else None

    @property
    def steps(self) -> int:
        """How many steps were asked for."""
        return int(self.settings.get("train_steps") or 0)

    @property
    def done(self) -> int:
        """The last step in the log."""
        return max((int(each["step"]) for each in self.records), default=0)

    @property
    def samples_per_step(self) -> int:
        """n of a point of the curves: samples whose losses one step averages."""
        settings = self.settings
        return (
            int(settings.get("batch") or 1)
            * int(settings.get("accumulation") or 1)
            * int(self.about.get("processes") or 1)
        )

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A row per logged step: step, loss, its parts, gradient_norm, blocks_run, learning_rate, seconds; NaN where absent."""
        rows = [_numbers(each) for each in self.records if "validation" not in each]
        return pd.DataFrame(rows if rows else {"step": []})

    @property
    def losses(self) -> list[str]:
        """`loss`, the weighted sum, then its parts, as far as they are logged."""
        parts = [name for name in self.curves.columns if name not in (*NOT_LOSSES, "loss")]
        return (["loss"] if "loss" in self.curves.columns else []) + parts

    @cached_property
    def validations(self) -> pd.DataFrame:
        """A row per validation: step and every number that it measured."""
        rows = [
            {"step": each["step"], **_numbers(each["validation"])}
            for each in self.records
            if isinstance(each.get("validation"), dict)
        ]
        return pd.DataFrame(rows if rows else {"step": []})

    @cached_property
    def errors(self) -> pd.DataFrame:
        """Held-out errors: step, against (data or teacher), sigma, mean, low, high (95 %, t over n samples), n."""
        from scipy.stats import t

        rows = []
        for row in self.validations.to_dict("records"):
            n = int(row.get("n") or 0) if np.isfinite(row.get("n", np.nan)) else 0
            for name, mean in row.items():
                found = _ERROR.fullmatch(str(name))
                if found is None or np.isnan(mean):
                    continue
                error = row.get(f"{name} standard error", np.nan)
                half = float(t.ppf(0.975, n - 1)) * error if n > 1 else np.nan
                against, sigma = found.groups()
                interval = {"low": mean - half, "high": mean + half}
                rows.append(
                    {"step": row["step"], "against": against, "sigma": float(sigma), "mean": mean, **interval, "n": n}
                )
        return pd.DataFrame(rows, columns=["step", "against", "sigma", "mean", "low", "high", "n"])

    @cached_property
    def shares(self) -> pd.DataFrame:
        """In how many clips the oracle read what was asked for: step, factor, share, low, high (95 %, Wilson), n clips."""
        from analysis.metrics.proportions import wilson_interval

        rows = []
        for row in self.validations.to_dict("records"):
            for name, share in row.items():
                factor = str(name).removeprefix("oracle ")
                counted = row.get(f"{name} n", np.nan)
                if factor == name or factor not in FACTORS or np.isnan(share) or np.isnan(counted):
                    continue
                n = int(counted)
                low, high = wilson_interval(round(share * n), n)
                rows.append({"step": row["step"], "factor": factor, "share": share, "low": low, "high": high, "n": n})
        return pd.DataFrame(rows, columns=["step", "factor", "share", "low", "high", "n"])

    @property
    def clips(self) -> dict[int, dict[int, Path]]:
        """Validation step → clip number → file of the student."""
        found: dict[int, dict[int, Path]] = {}
        for path in sorted((self.folder / "clips").glob("*.mp4")):
            match = re.fullmatch(r"(\d{6,})-(\d+)", path.stem)
            # A link may lead anywhere.
            if match and lies_inside(path, self.folder):
                found.setdefault(int(match[1]), {})[int(match[2])] = path
        return found

    def teacher_clip(self, number: int) -> Path | None:
        """The teacher's clip of the same caption and seed."""
        path = self.folder / "clips" / f"{TEACHER}-{number}.mp4"
        return path if path.is_file() and lies_inside(path, self.folder) else None

    @property
    def role_steps(self) -> list[int]:
        """Steps at which the roles of the student's heads were measured."""
        names = (path.stem for path in (self.folder / "roles").glob("*.safetensors"))
        return sorted(int(name) for name in names if name.isdecimal())

    def ratios(self, step: int | None) -> "Ratios | None":
        """What was measured of the student's heads at a step, of the teacher's for None; None where nothing was."""
        path = self.folder / "roles" / f"{TEACHER if step is None else f'{step:06d}'}.safetensors"
        return Ratios.read(path) if path.is_file() else None


@dataclass(frozen=True, eq=False)
class Ratios:
    """Intra-slice ratios [sample, sigma, block, head] (NaN: no such head), and which blocks ran [sample, sigma, block]."""

    ratio: np.ndarray
    ran: np.ndarray | None
    sigmas: tuple[float, ...]

    @classmethod
    def read(cls, path: Path) -> "Ratios":
        """Read a file that a validation wrote. Raises `InputError` for one that cannot be read."""
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {}).get("pare", "{}"))
                names = set(file.keys())
                ratio = file.get_tensor("self/ratio")
                ran = file.get_tensor("router/ran") if "router/ran" in names else None
            sigmas = tuple(float(each) for each in about["sigmas"])
            if ratio.ndim != 4 or ratio.shape[1] != len(sigmas):
                raise ValueError(f"ratios of shape {list(ratio.shape)}")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            fix = "it is written again at the next validation"
            raise InputError(str(path), got=error, expected="measured ratios", fix=fix) from None
        return cls(ratio, ran, sigmas)

    @property
    def samples(self) -> int:
        return len(self.ratio)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record; what is none is left out."""
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
