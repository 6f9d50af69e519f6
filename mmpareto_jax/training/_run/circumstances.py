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
      a clone, and of the directory that the process works in.
    """
    library = Path(mmpareto_jax.__file__).parent
    repositories = {}
    # A library that is installed within another repository is no part of it.
    if _git(library, "ls-files", "__init__.py"):
        repositories["mmpareto_jax"] = commit_of(library)
    repositories["working directory"] = commit_of(Path.cwd())
    return {
        "argv": list(sys.argv),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_PREFIXES)
        },
        "jax": {name: _setting(name) for name in _SETTINGS},
        "git": {name: found for name, found in repositories.items() if found},
    }


def commit_of(folder: Path) -> dict[str, Any] | None:
    """The commit of the repository that a folder is in.

    Returns:
      "commit", and "dirty": whether files have changed since, None where git does not
      know soon enough. None where there is no git, or no repository.
    """
    commit = _git(folder, "rev-parse", "HEAD", patience=20 * _PATIENCE)
    if not commit:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def _git(folder: Path, *arguments: str, patience: float = _PATIENCE) -> str | None:
    """What git answers; None where it does not."""
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
        return None
    return found.stdout.strip()


def _setting(name: str) -> Any:
    value = getattr(jax.config, name, None)
    return value if isinstance(value, bool | str | None) else str(value)
