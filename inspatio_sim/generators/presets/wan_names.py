"""Names of Wan2.1's transformer as diffusers writes them, and as Wan and this package do.

Source of the table: huggingface/diffusers, scripts/convert_wan_to_diffusers.py (Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_OUTSIDE = {  # diffusers -> Wan
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
    "scale_shift_table": "head.modulation",
}
_IN_BLOCK = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "norm2": "norm3",  # diffusers counts the norms in the order of their use
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "scale_shift_table": "modulation",
}
_NAME = re.compile(r"(?P<block>blocks\.\d+\.)?(?P<layer>.+?)(?P<kind>\.weight|\.bias)?")


def is_diffusers(names: Iterable[str]) -> bool:
    """Whether these are diffusers' names."""
    return any(name.startswith("condition_embedder.") for name in names)


def from_diffusers(name: str) -> str:
    """A tensor's name at Wan; names that the table does not know stay as they are."""
    match = _NAME.fullmatch(name)
    if match is None:
        return name
    block, layer, kind = match["block"] or "", match["layer"], match["kind"] or ""
    table = _IN_BLOCK if block else _OUTSIDE
    return f"{block}{table[layer]}{kind}" if layer in table else name
