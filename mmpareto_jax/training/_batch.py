"""What tasks give and methods see: the examples of a split, and a batch of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
Batch = Mapping[str, Any]
