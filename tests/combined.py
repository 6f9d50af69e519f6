"""Problems of several losses, for the tests of ``combined_grads``."""

import functools

import jax.numpy as jnp
import numpy as np

import mmpareto_jax as mmp


def normal(seed, *shape, scale=1.0):
    return np.float32(scale * np.random.default_rng(seed).normal(size=shape))


def audio_visual(width=6, batch=7):
    """Two encoders, three losses, a part of the parameters that none reaches."""
    params = {
        "audio": [normal(0, 5, width), normal(1, width, width)],
        "visual": normal(2, 4, width),
        "heads": {
            "joint": normal(3, 2 * width),
            "audio": normal(4, width),
            "visual": normal(5, width),
        },
        "unused": np.ones(2, np.float32),
    }

    def losses_fn(params, audio, visual):
        a = jnp.tanh(jnp.tanh(audio @ params["audio"][0]) @ params["audio"][1])
        v = jnp.tanh(visual @ params["visual"])
        heads = params["heads"]
        return {
            "joint": jnp.mean((jnp.concatenate([a, v], -1) @ heads["joint"] - 1) ** 2),
            "audio": jnp.mean((a @ heads["audio"] + 1) ** 2),
            "visual": jnp.mean((v @ heads["visual"]) ** 2),
        }

    return losses_fn, params, (normal(6, batch, 5), normal(7, batch, 4))


def heads(num, depth=3, width=8, batch=6):
    """A trunk of all objectives and a head of each."""
    params = {
        "trunk": [normal(k, width, width, scale=width**-0.5) for k in range(depth)],
        "heads": [normal(10 + k, width) for k in range(num)],
    }

    def losses_fn(params, x):
        for w in params["trunk"]:
            x = jnp.tanh(x @ w)
        return {
            str(k): jnp.mean((x @ w - (-1) ** k) ** 2)
            for k, w in enumerate(params["heads"])
        }

    return losses_fn, params, (normal(9, batch, width),)


def rule(name, **kwargs):
    return functools.partial(mmp.aggregate, getattr(mmp.weightings, name)(), **kwargs)
