"""Names as they are shown: a group of a thousand objectives has a long one."""

from __future__ import annotations

import re
import zlib

_WIDTH = 40


def shortened(name: str, width: int = _WIDTH, between: str = "+") -> str:
    """The name, or what its ends are where it is longer than `width`.

    Args:
      name: of a group, an objective or a directory; parts of a group are joined by "+".
      width: characters that there is room for.
      between: what stands between the parts.

    Returns:
      The name, or its first and last part and their number, or the first and last
      characters; never longer than `width` where that is 20 or more.

    Example:
      >>> from mmpareto_jax.training._described.names import shortened
      >>> shortened("joint+audio")
      'joint+audio'
      >>> shortened("+".join(map(str, range(1000))))
      '0+1+…+999 (1000)'
      >>> shortened("a-directory-with-a-name-that-says-it-all", 20)
      'a-directo…ays-it-all'
    """
    if len(name) <= width:
        return name
    parts = name.split(between)
    if len(parts) > 3:
        shown = f"{between.join([*parts[:2], '…', parts[-1]])} ({len(parts)})"
        if len(shown) <= width:
            return shown
    half = (width - 1) // 2
    return f"{name[:half]}…{name[half + 1 - width :]}"


def tag(name: str) -> str:
    """A name for TensorBoard: short, and another one for another name.

    Args:
      name: of a scalar, "group/kind/objective" or shorter.

    Returns:
      It, each part shortened; with a checksum of the whole where one was.

    Example:
      >>> from mmpareto_jax.training._described.names import tag
      >>> tag("joint+audio/cosine")
      'joint_audio/cosine'
      >>> tag("+".join(map(str, range(1000))) + "/cosine")
      '0_1_999_1000_/cosine_15a8af34'
    """
    shown = "/".join(shortened(part) for part in name.split("/"))
    if shown == name:
        return name.replace("+", "_")  # which TensorBoard has not in its names
    plain = re.sub(r"[^-/\w.]+", "_", shown)
    return f"{plain}_{zlib.crc32(name.encode()):08x}"
