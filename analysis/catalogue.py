"""Everything that a capture can measure: statistics and moments by name, each with its unit and meaning."""

from collections.abc import Mapping

# name → unit, what it is.
HEAD_STATISTICS: Mapping[str, tuple[str, str]] = {
    "self/ratio": (
        "share",
        "intra-slice ratio r: attention that stays in the query's latent frame, mean of all queries",
    ),
    "self/value_norm": ("activation", "‖ṽ‖_F of the head's self-attention output over tokens x head_dim"),
    "self/projected_energy": ("activation", "‖ṽ·W_Oᵀ‖_F: the same after the head's slice of the output projection"),
    "self/entropy_exact": (
        "nat",
        "entropy of attention, mean of all queries: LSE − q·E[k], which costs a second attention call per block",
    ),
    "cross/value_norm": ("activation", "‖ṽ‖_F of the head's cross-attention output, text part"),
    "cross/image_value_norm": ("activation", "‖ṽ‖_F of the head's cross-attention output, image part"),
    "cross/projected_energy": (
        "activation",
        "‖ṽ·W_Oᵀ‖_F of the head's cross-attention output, text and image part summed",
    ),
}
# Estimated from sampled query rows; each has a standard error beside it, under its name with `_error`.
ROW_STATISTICS: Mapping[str, tuple[str, str]] = {
    "self/entropy": ("nat", "entropy of attention, mean of all queries; uniform attention has log(tokens)"),
    "self/temporal_distance": ("frame", "mean |frame of query − frame of key| under attention"),
    "self/first_frame_share": ("share", "attention to latent frame 0"),
}
FRAME_MAP = "self/frame_map"
MAP_STATISTICS: Mapping[str, tuple[str, str]] = {
    FRAME_MAP: ("share", "attention from every query frame to every key frame, mean of the frame's queries"),
}
BLOCK_STATISTICS: Mapping[str, tuple[str, str]] = {
    "block/residual_norm": ("activation", "‖B(x) − x‖_F over tokens x width"),
    "block/input_norm": ("activation", "‖x‖_F over tokens x width"),
    "block/cosine": ("cosine", "⟨x, B(x)⟩ / (‖x‖·‖B(x)‖), tokens x width as one vector"),
    "block/self_norm": ("activation", "‖·‖_F of what self-attention adds to the residual stream, gate included"),
    "block/cross_norm": ("activation", "‖·‖_F of what cross-attention adds to the residual stream"),
    "block/ffn_norm": ("activation", "‖·‖_F of what the feed-forward network adds, gate included"),
}
STATISTICS: Mapping[str, tuple[str, str]] = {
    **HEAD_STATISTICS,
    **ROW_STATISTICS,
    **MAP_STATISTICS,
    **BLOCK_STATISTICS,
}

_HEAD, _OUTPUT, _NEURON = ("block", "head"), ("block", "head", "dim"), ("block", "neuron")
# name → axes, unit, what is averaged over tokens, steps, branches and samples.
MOMENTS: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "self/query_square": (_HEAD, "activation²", "mean square of the head's queries before their norm"),
    "self/key_square": (_HEAD, "activation²", "mean square of the head's keys before their norm"),
    "self/output": (_OUTPUT, "activation", "mean output ṽ of the head"),
    "cross/query_square": (_HEAD, "activation²", "mean square of the head's queries before their norm"),
    "cross/key_square": (_HEAD, "activation²", "mean square of the head's text keys before their norm"),
    "cross/added_key_square": (_HEAD, "activation²", "mean square of the head's image keys before their norm"),
    "cross/output": (_OUTPUT, "activation", "mean output ṽ of the head, text and image part summed"),
    "ffn/activation": (_NEURON, "activation", "mean input of the second linear layer"),
    "ffn/activation_square": (_NEURON, "activation²", "mean square of the same"),
}
# What only a model with added key and value projections has.
IMAGE_ONLY = ("cross/image_value_norm", "cross/added_key_square")

BASIC = ("self/ratio", "self/value_norm", "cross/value_norm", "cross/image_value_norm", *tuple(BLOCK_STATISTICS)[:3])
# All but what costs a second attention call.
CHEAP = tuple(name for name in STATISTICS if name != "self/entropy_exact")
# Words that stand for several statistics.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "all": (*CHEAP, "moments"),
    "basic": BASIC,
    "rows": tuple(ROW_STATISTICS),
    "maps": (FRAME_MAP,),
    "parts": ("block/self_norm", "block/cross_norm", "block/ffn_norm"),
}
