"""Published raw files, or own arrays, in, one compact memory-mapped form out.

A data set's name and a directory come in, a directory of npy files and an index go out,
and are opened again. It may import decoders (av, soundfile, pillow), numpy, and
``_published``.
"""

from mmpareto_jax.data.sources._by_name import NAMES as NAMES
from mmpareto_jax.data.sources._by_name import options_of as options_of
from mmpareto_jax.data.sources._by_name import plan_of as plan_of
from mmpareto_jax.data.sources._check import check_prepared as check_prepared
from mmpareto_jax.data.sources._engine import Progress as Progress
from mmpareto_jax.data.sources._engine import prepare as prepare
from mmpareto_jax.data.sources._plan import Example as Example
from mmpareto_jax.data.sources._plan import Plan as Plan
from mmpareto_jax.data.sources._plan import Problem as Problem
from mmpareto_jax.data.sources._plan import UnusableError as UnusableError
from mmpareto_jax.data.sources._store import Prepared as Prepared
from mmpareto_jax.data.sources._store import open_prepared as open_prepared
