"""Strict numerics for every test: no silent rank promotion, 8 CPU devices."""

import importlib
import os
import tempfile

import hypothesis
import jax
import pytest

# Run by hand: they need what no test needs, PyTorch for one. And a script of a test.
collect_ignore_glob = ["benchmarks/*", "several_processes.py", "faults.py"]

# No command that is tested in this process keeps programs in the user's cache.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")

# Properties: few examples, the same in every run; HYPOTHESIS_PROFILE=long for many.
# Of neither is anything left in the checkout.
hypothesis.configuration.set_hypothesis_home_dir(
    os.path.join(tempfile.gettempdir(), f"hypothesis-{os.getuid()}")
)
for _name, _examples in {"ci": 60, "long": 10_000}.items():
    hypothesis.settings.register_profile(
        _name,
        max_examples=_examples,
        derandomize=_name == "ci",
        deadline=None,
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# What a program does is seen without optimisations, too, which are most of a test's
# time. These are about texts, costs and last digits of programs.
OPTIMISED = {
    "tests.test_against_jax_grad",
    "tests.models.test_official_parity",
    "tests.test_combined_cost",
    "tests.test_cost",
    "tests.test_feature_level",
    "tests.test_golden",
    "tests.test_gramian",
    "tests.test_min_norm",
    "tests.test_probe_cost",
    "tests.test_sharding",
}
# Of XLA's CPU compiler, beside what JAX leaves out.
QUICK = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


@pytest.fixture
def x64():
    """Float64 for the duration of one test."""
    with jax.enable_x64(True):
        yield


def known(options):
    """The options, if this version of XLA has them."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=options)(1)
    except jax.errors.JaxRuntimeError:
        return {}
    return options


@pytest.fixture(autouse=True, scope="session")
def _quickly_compiled():
    """All that is compiled: single operations, too, which no public option is for."""
    compiler = importlib.import_module("jax._src.compiler")
    get_compile_options, more = compiler.get_compile_options, known(QUICK).items()

    def quick(*args, **kwargs):
        found = get_compile_options(*args, **kwargs)
        if jax.config.values["jax_disable_most_optimizations"]:
            found.env_option_overrides = [*found.env_option_overrides, *more]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", quick)
        jax.config.update("jax_disable_most_optimizations", True)
        yield


@pytest.fixture(scope="session")
def quick_processes():
    """The environment of others that are to compile as quickly."""
    flags = [f"--{k}={str(x).lower()}" for k, x in known(QUICK).items()]
    before = os.environ.get("XLA_FLAGS", "").split()
    return {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": " ".join([*before, *flags]),
    }


@pytest.fixture(autouse=True, scope="module")
def _optimised(request):
    if request.module.__name__ not in OPTIMISED:
        yield
        return
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """What a module compiled goes with it: all of them together are gigabytes."""
    yield
    jax.clear_caches()
