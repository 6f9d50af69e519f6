"""The data sets that can be prepared, for those that read, learn and offer them.

Beside `data.sources`, which reads them, since importing that package takes a second,
and ``mmpareto --help`` has these names too.
"""

from typing import Literal, get_args

# Several modalities of one label, those of "arrays" a person's own; and several
# questions about one image.
PublishedModalities = Literal[
    "crema-d", "kinetics-sounds", "colored-digits", "modelnet40", "ucf-101", "arrays"
]
PublishedTasks = Literal["nyuv2", "cityscapes"]

PUBLISHED: tuple[str, ...] = get_args(Literal[PublishedModalities, PublishedTasks])
