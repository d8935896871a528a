"""The one pipeline that a worker keeps loaded between jobs, because a large model takes long to load."""

import gc
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


class WarmPipeline:
    """`pare.models.load_pipeline` that answers from memory while it is asked for the same thing.

    The same thing = equal arguments and a model that is the same on disk (`pare.models.model_identity`). Another key
    evicts what is there before it loads. What it returns is shared with later jobs: a command leaves it as it found it.
    """

    def __init__(
        self,
        load: Callable[..., Any] | None = None,
        identity: Callable[[Any], Mapping[str, Any]] | None = None,
    ):
        self._load, self._identity = load, identity
        self._key: object = None
        self._pipeline: Any = None

    def __call__(self, model: Any, **options: Any) -> Any:
        identity = self._identity or importlib.import_module("pare.models").model_identity
        key = (str(model), repr(sorted(options.items())), repr(sorted(identity(model).items())))
        if key == self._key:
            print("model: still loaded")
        else:
            print("model: loading")
            self.clear()
            load = self._load or importlib.import_module("pare.models").load_pipeline
            self._pipeline = load(model, **options)
            self._key = key
        return self._pipeline

    def clear(self) -> None:
        """Lets the pipeline go and gives its memory back."""
        held = self._pipeline is not None
        self._key = self._pipeline = None
        if not held:
            return
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
