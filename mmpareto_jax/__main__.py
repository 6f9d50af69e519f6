"""``python -m mmpareto_jax``: the same as the command ``mmpareto``."""

import sys

from mmpareto_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
