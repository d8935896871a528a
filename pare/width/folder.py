"""Prune a transformer on disk, block by block: no more of it is in memory than one block and one output file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights

from pare.errors import InputError
from pare.geometry import read_json
from pare.progress import Progress, silent
from pare.transformer import BlockInputs, PareWanTransformer3DModel
from pare.width.cut_error import BlockError, Probe, block_error, gates_of_block, random_probe
from pare.width.surgery import Cut, cut_block, student_config
from pare.width.weight_files import ShardWriter, WeightFiles

GIB = 2**30


@dataclass(frozen=True)
class FolderReport:
    """What was written, and the error of every block (empty where it was not measured)."""

    weight_bytes: int
    dense_parameters: int
    parameters: int
    errors: list[BlockError]


def prune_folder(
    source: str | Path,
    out: str | Path,
    cut: Cut,
    *,
    base: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = GIB,
    measure: bool = True,
    probe: Probe | None = None,
    progress: Progress = silent,
) -> FolderReport:
    """Write the student of the transformer folder `source` to the existing, empty folder `out`.

    `cut` is what `plan_cut` made of the folder's config. Weights keep their precision, or become `dtype` (but for those
    that the model keeps in float32). With `measure` every block's error against masking is taken while it is in memory,
    on a random probe unless one is given. Progress counts blocks. Raises `InputError` for a folder whose weights are
    not those of its config.
    """
    out, weights = Path(out), WeightFiles.of(source)
    config = {name: value for name, value in read_json(Path(source) / "config.json").items() if name[0] != "_"}
    with init_empty_weights(include_buffers=False):
        dense = PareWanTransformer3DModel.from_config(config).eval()
        pruned = PareWanTransformer3DModel.from_config(student_config(config, cut, base, run)).eval()
    _check_names(weights, dense)
    blocks, writer = len(dense.blocks), ShardWriter(out, max_shard_bytes)
    progress(0, blocks, "reading what is outside of the blocks")
    outside = weights.read(name for name in dense.state_dict() if not name.startswith("blocks."))
    inputs = _first_inputs(pruned, outside, probe) if measure else None
    writer.add(_stored(outside, dtype, pruned))
    del outside
    errors = []
    for index in range(blocks):
        prefix = f"blocks.{index}."
        names = [name.removeprefix(prefix) for name in dense.state_dict() if name.startswith(prefix)]
        state = {
            name: tensor for name, tensor in zip(names, weights.read(prefix + n for n in names).values(), strict=True)
        }
        tensors = cut_block(state, cut, index)
        if inputs is not None:
            inputs, error = _measured(dense, pruned, index, state, tensors, cut, inputs)
            errors.append(error)
        del state
        writer.add(_stored({prefix + name: tensor for name, tensor in tensors.items()}, dtype, pruned))
        progress(index + 1, blocks, f"block {index + 1} of {blocks}")
    pruned.save_config(out)
    return FolderReport(writer.finish(), _count(dense), _count(pruned), errors)


def _check_names(weights: WeightFiles, dense: PareWanTransformer3DModel) -> None:
    # Old image-to-video checkpoints carry a norm that no code uses.
    ignored = ("norm_added_q",)
    found = {name for name in weights.files if not any(part in name for part in ignored)}
    if odd := sorted(found ^ set(dense.state_dict())):
        raise InputError(
            "weights",
            got=f"{'no' if odd[0] in dense.state_dict() else 'an unknown'} {odd[0]}",
            expected="the weights of the config",
            fix="save the model again, without adapters",
        )


def _stored(
    tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None, model: PareWanTransformer3DModel
) -> dict[str, torch.Tensor]:
    """The tensors as they are written."""
    if dtype is None:
        return dict(tensors)
    kept = model._keep_in_fp32_modules or ()
    return {
        name: tensor.to(torch.float32 if set(name.split(".")) & set(kept) else dtype)
        for name, tensor in tensors.items()
    }


@torch.no_grad()
def _first_inputs(
    model: PareWanTransformer3DModel, outside: Mapping[str, torch.Tensor], probe: Probe | None
) -> BlockInputs:
    """What goes into the first block; the tensors are in the model only while this runs."""
    model.load_state_dict(outside, strict=False, assign=True)
    probe = probe or random_probe(model.config, dtype=model.patch_embedding.weight.dtype)
    _, inputs = model.embed(*probe.to(torch.device("cpu")))
    model.load_state_dict({name: tensor.to("meta") for name, tensor in outside.items()}, strict=False, assign=True)
    return inputs


def _measured(
    dense: PareWanTransformer3DModel,
    pruned: PareWanTransformer3DModel,
    index: int,
    state: Mapping[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    cut: Cut,
    inputs: BlockInputs,
) -> tuple[BlockInputs, BlockError]:
    """The next block's inputs and this block's error; the tensors are in the models only while this runs."""
    for model, own in ((dense, state), (pruned, tensors)):
        model.blocks[index].load_state_dict(own, assign=True)
    gates = gates_of_block(cut.mask, index, cut.means or None)
    output, error = block_error(dense.blocks[index], pruned.blocks[index], gates, dense.config, inputs)
    for model in (dense, pruned):
        model.blocks[index].to("meta")
    return (output, *inputs[1:]), error


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
