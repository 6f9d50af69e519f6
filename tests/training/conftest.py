"""The run that several modules look at: it is compiled once."""

import pytest

from mmpareto_jax.training import Config, train


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished one, of 4 steps per epoch; it ends within its second epoch."""
    config = Config(train_examples=64, batch_size=16, steps=7, lr=0.02)
    return train(config, tmp_path_factory.mktemp("runs") / "whole")
