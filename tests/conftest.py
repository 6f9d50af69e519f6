"""Strict numerics for every test: no silent rank promotion, 8 CPU devices."""

import jax
import pytest

# Run by hand: they need what no test needs, PyTorch for one. And a script of a test.
collect_ignore_glob = ["benchmarks/*", "several_processes.py"]

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Float64 for the duration of one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def quickly_compiled():
    """For tests of what small programs do, and not of how fast or to which digit."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """What a module compiled goes with it: all of them together are gigabytes."""
    yield
    jax.clear_caches()
