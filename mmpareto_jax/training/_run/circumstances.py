"""How and where a run began, as far as its numbers may depend on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

import mmpareto_jax

# Of the environment: what tells jax and XLA how to compute, and on what.
_PREFIXES = (
    "JAX_",
    "XLA_",
    "LIBTPU_",
    "CUDA_VISIBLE_",
    "ROCR_VISIBLE_",
    "NVIDIA_TF32_",
)
# What may be set in Python, too.
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
)
# Seconds: of a large repository it then stays unknown whether it has changed.
_PATIENCE = 0.05


def circumstances() -> dict[str, Any]:
    """What stands in ``config.json`` for each time that a run began.

    Returns:
      "argv", of this process; "environment" and "jax", the variables and settings that
      tell jax how to compute; "git", name -> `commit_of` this library, where it lies in
      a clone, and of the directory that the process works in, where that is another.
    """
    # A library that is installed within another repository is no part of it.
    clone, here = Path(mmpareto_jax.__file__).parents[1], Path.cwd()
    folders = {"mmpareto_jax": clone} if (clone / ".git").exists() else {}
    if not here.is_relative_to(clone):
        folders["working directory"] = here
    git = {name: commit_of(folder) for name, folder in folders.items()}
    return {
        "argv": list(sys.argv),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_PREFIXES)
        },
        "jax": {name: _setting(name) for name in _SETTINGS},
        "git": {name: found for name, found in git.items() if found},
    }


def commit_of(folder: Path) -> dict[str, Any] | None:
    """The commit of the repository that a folder is in.

    Returns:
      "commit", and "dirty": whether files have changed since, None where git does not
      know soon enough. None where there is no git, or no repository.
    """
    status = ("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if lines := _git(folder, *status, patience=_PATIENCE):
        commit = next((x[-1] for x in lines if x[1] == "branch.oid"), "(initial)")
        found = {"commit": commit, "dirty": any(x[0] != "#" for x in lines)}
        return None if commit == "(initial)" else found
    if lines := _git(folder, "rev-parse", "HEAD", patience=20 * _PATIENCE):
        return {"commit": lines[0][0], "dirty": None}
    return None


def _git(folder: Path, *arguments: str, patience: float) -> list[list[str]]:
    """The words of each line that git answers; none where it does not."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            check=True,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=patience,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return [line.split() for line in found.stdout.splitlines()]


def _setting(name: str) -> Any:
    value = getattr(jax.config, name, None)
    return value if isinstance(value, bool | str | None) else str(value)
