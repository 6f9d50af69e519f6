"""The sweep: its settings are valid, its rows right, its correction Holm's."""

import concurrent.futures
import dataclasses
import functools

import matplotlib.image
import numpy as np
import pytest

from mmpareto_jax.cli import main
from mmpareto_jax.training import SETTINGS, Config, holm, sweep
from mmpareto_jax.training._study import compare as _compare
from mmpareto_jax.training._study import runs as _runs
from mmpareto_jax.training._study import shares
from mmpareto_jax.training._study import together as _together
from mmpareto_jax.training._study.together import Measured


def fake(config, task=None, inspect=True):
    """MMPareto gains where there are contradictions, and only there."""
    gain = 0.05 * (config.method == "mmpareto") * (config.contradiction > 0)
    noise = 0.001 * np.sin(7 * config.seed + len(config.method))
    score = 0.5 + gain + noise + 0.01 * (config.lr == 0.1)
    group = {"conflict": 0.1 + 0.2 * config.contradiction, "cosines": [1] * 40}
    group |= {"magnitude": [1.0] * 5, "norms": {"joint": [1.0]}}
    return {
        "method": config.method,
        "lr": config.lr,
        "seed": config.seed,
        "step": 1,
        "validation": {"accuracy/joint": score},
        "test": {"accuracy/joint": score},
        "probe": {"audio": 0.0} if inspect else {},
        "groups": {"audio_encoder": group, "visual_encoder": group | {"conflict": 0.3}},
    }


@pytest.fixture
def faked(monkeypatch):
    monkeypatch.setattr(_together, "run_once", fake)
    monkeypatch.setattr(_runs, "measure", lambda *_, **__: Measured(1, None))
    monkeypatch.setattr(_compare, "default_workers", lambda: 1)


def test_every_setting_is_a_valid_config():
    for change in SETTINGS.values():
        dataclasses.replace(Config(), **change)


def test_rows(faked, tmp_path):
    names = ("as it is", "contradictions 60 %", "three modalities")
    plain, gained, three = sweep(Config(), tmp_path, settings=names)
    assert [plain.setting, gained.setting, three.setting] == list(names)
    np.testing.assert_allclose(gained.difference.mean, 5.0, atol=0.2)
    np.testing.assert_allclose(gained.ours - gained.control, gained.difference.mean)
    assert abs(plain.difference.mean) < 0.2
    np.testing.assert_allclose(plain.conflict, 0.2)
    np.testing.assert_allclose(gained.conflict, (0.1 + 0.12 + 0.3) / 2)
    assert gained.corrected < 0.001
    assert (tmp_path / "contradictions-60-percent" / "runs.jsonl").exists()


def test_two_processes_make_the_rows_of_one(faked, tmp_path, monkeypatch):
    """Each goes on to the next setting; the first waits for the other's runs."""
    monkeypatch.setattr(shares, "_PAUSE", 0.01)
    names = ("as it is", "contradictions 60 %")
    expected = sweep(Config(), tmp_path / "one", settings=names, seeds=3)
    both = functools.partial(
        sweep, Config(), tmp_path / "two", settings=names, seeds=3, patience=60.0
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first, other = (
            pool.submit(both, num_processes=2, process_id=i) for i in (0, 1)
        )
        assert other.result() == []
        assert first.result() == expected
    for name in ("as-it-is", "contradictions-60-percent"):
        for file in ("runs.jsonl", "runs-1.jsonl"):
            lines = (tmp_path / "two" / name / file).read_text().splitlines()
            assert len(lines) == (2 * 3 + 2 * 3) / 2


def test_the_command(faked, tmp_path, capsys):
    arguments = ["sweep", "--seeds", "3", "--workdir", str(tmp_path)]
    assert main([*arguments, "--settings", "as it is,FiLM"]) == 0
    out = capsys.readouterr().out
    assert "| FiLM | 20.0 | " in out
    assert "Holm's correction for 2 settings" in out
    assert (tmp_path / "table.md").read_text() in out
    image = matplotlib.image.imread(tmp_path / "map.png")
    assert image.std() > 0.05


def test_holm():
    p = [0.01, 0.5, 0.02, 0.9]
    np.testing.assert_allclose(holm(p), [0.04, 1.0, 0.06, 1.0])
    assert holm([0.2]) == [0.2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--settings", "no"], "unknown setting no"),
        (["--workers", "0"], "--workers: expected 1 to"),
        (["--seeds", "1"], "seeds: expected 2 to 10000"),
    ],
)
def test_mistakes(arguments, message, tmp_path, capsys):
    assert main(["sweep", "--workdir", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
