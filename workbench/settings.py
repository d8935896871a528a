"""The flags common to all commands that run a model: one definition of each, for Python, jobs and the command line."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import typer
from pydantic import Field

from pare import reference
from pare.errors import InputError
from pare.geometry import Clip, check_clip

# What a model must say how to do, in its defaults.json or by its geometry, where the command does not.
NEEDED = ("height", "width", "frames", "fps", "steps", "guidance", "shift")


class RunSettings(pydantic.BaseModel):
    """How a model is run; None stands for the model's own default.

    >>> RunSettings.of(steps=4).filled("wan2.1-t2v-1.3b").guidance
    6.0
    """

    # Numbers become text, since a job's words do not say which was meant.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, defer_build=True, coerce_numbers_to_str=True)

    height: int | None = Field(None, gt=0, description="Height of the video in pixels.")
    width: int | None = Field(None, gt=0, description="Width of the video in pixels.")
    frames: int | None = Field(None, gt=0, description="Length in video frames.")
    fps: float | None = Field(None, gt=0, le=240, description="Video frames per second.")
    steps: int | None = Field(None, gt=0, le=1000, description="Denoising steps.")
    guidance: float | None = Field(None, ge=0, le=100, description="Guidance scale; 1 or less runs one branch only.")
    shift: float | None = Field(None, gt=0, le=100, description="Timestep shift of the sampler.")
    negative_prompt: str | None = Field(None, description="What the other branch of guidance is told.")
    image: str | None = Field(None, description="First video frame, an image file (image-to-video models).")
    last_image: str | None = Field(None, description="Last video frame, an image file (models trained for it).")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the noise.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Precision of the weights.")
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps, or auto.")
    offload: Literal["none", "model", "group"] = Field("none", description="What waits in main memory.")
    attention: Literal["native", "xformers"] = Field("native", description="Attention backend.")
    dry_run: bool = Field(False, description="Print cost and plan, run nothing.")

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Settings from keyword arguments; raises `InputError` that names the flag, in place of pydantic's report."""
        try:
            return cls(**values)
        except pydantic.ValidationError as error:
            raise input_error(error, cls) from error

    def filled(self, model: str, *, videos: bool = False) -> Self:
        """These settings with the model's defaults filled in, checked against what the model can do.

        With `videos` an image-to-video model takes its first frames from them, and no image is given. Raises
        `InputError` naming the missing flags, the size that does not fit, or the image that is missing.
        """
        known = reference.resolve(model)
        stored = reference.defaults(known, height=self.height, width=self.width)
        if unknown := sorted(set(stored) - set(type(self).model_fields)):
            raise InputError(
                f"defaults.json of {model}",
                got=f"unknown settings {', '.join(unknown)}",
                expected="names of run settings",
                fix="remove them",
            )
        settings = type(self).of(**(stored | self.model_dump(exclude_unset=True, exclude_none=True)))
        missing = [_flag(name) for name in NEEDED if getattr(settings, name) is None]
        if missing:
            raise InputError(
                " ".join(missing),
                got="no value",
                expected=f"a value, since {model} comes without defaults of its own",
                fix=f"add {' '.join(f'{flag} …' for flag in missing)}",
            )
        geometry = reference.model_geometry(known)
        check_clip(geometry, settings.clip)
        _check_images(settings, geometry.image_to_video, geometry.pos_embed_tokens is not None, videos)
        return settings

    @property
    def clip(self) -> Clip:
        """The clip that these settings, once filled, describe."""
        assert self.height is not None and self.width is not None and self.frames is not None
        return Clip(self.height, self.width, self.frames)

    @property
    def loading(self) -> dict[str, Any]:
        """What `pare.models.load_pipeline` is told."""
        return {
            "dtype": self.dtype,
            "device": self.device,
            "offload": self.offload,
            "attention": self.attention,
        }


def with_run_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a typer command that takes `**settings` one option for every field of `RunSettings`."""
    return with_flags(command, RunSettings)


def with_flags(command: Callable[..., Any], settings: type[pydantic.BaseModel]) -> Callable[..., Any]:
    """Gives a typer command that takes `**settings` one option for every field of a settings class."""
    signature = inspect.signature(command, eval_str=True)
    named = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[
                field.annotation, typer.Option(_flag(name), help=_help(name, field.description, settings))
            ],
        )
        for name, field in settings.model_fields.items()
    ]
    command.__signature__ = signature.replace(parameters=[*named, *flags])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in [*named, *flags]}
    return command


def _help(name: str, description: str | None, settings: type[pydantic.BaseModel]) -> str:
    text = (description or "").removesuffix(".")
    return f"{text}; default: the model's." if settings is RunSettings and name in NEEDED else f"{text}."


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def input_error(error: pydantic.ValidationError, settings: type[pydantic.BaseModel]) -> InputError:
    """What pydantic says of the first value that does not fit, in one line that names the flag."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    if first["type"] == "extra_forbidden":
        known = ", ".join(_flag(each) for each in settings.model_fields)
        return InputError(_flag(name), got="an unknown flag", expected=f"one of {known}", fix="check the spelling")
    expected = first["msg"].removeprefix("Input should be ").replace("'", "")
    expected = f"a number {expected}" if expected.startswith(("greater", "less")) else expected
    return InputError(_flag(name), got=first["input"], expected=expected, fix="give another value")


def _check_images(settings: RunSettings, image_to_video: bool, last_image: bool, videos: bool) -> None:
    for flag, value in (("--image", settings.image), ("--last-image", settings.last_image)):
        if videos and value is not None:
            raise InputError(
                flag,
                got=f"{value}, with --videos",
                expected="no image, since every video has frames of its own",
                fix=f"leave {flag} out",
            )
    if image_to_video and settings.image is None and not settings.dry_run and not videos:
        raise InputError(
            "--image", got="no value", expected="an image, for an image-to-video model", fix="--image FILE"
        )
    if not image_to_video and settings.image is not None:
        raise InputError(
            "--image", got=settings.image, expected="no image, for a text-to-video model", fix="leave --image out"
        )
    if not last_image and settings.last_image is not None:
        raise InputError(
            "--last-image",
            got=settings.last_image,
            expected="no last image, since the model was not trained for one",
            fix="leave --last-image out",
        )
    for flag, value in (("--image", settings.image), ("--last-image", settings.last_image)):
        if value is not None and not Path(value).expanduser().is_file():
            raise InputError(flag, got=f"{value}, no such file", expected="an image file", fix="check the path")
