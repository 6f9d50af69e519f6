"""How much of a file is read: what is above is left out, or refused, with the number.

Published data are far below; a damaged head, or a small file that unpacks without end,
is not.
"""

# Of a file that is read as a whole: an image, an array of a scene, a list.
FILE_BYTES = 2**30
# Of an IDX file, unpacked. EMNIST's largest is half of it.
IDX_BYTES = 2**30
# Of index.json, some millions of examples.
INDEX_BYTES = 2**30
# Of one example in an array.
EXAMPLE_BYTES = 2**30
# Of an image, or a frame of a video.
PIXELS = 2**26
# Of a clip, by what is decoded and not by what its head tells.
SECONDS = 3600
SAMPLES = 2**28
FRAMES = 500_000
# Samples per second of a track.
SAMPLE_RATE = 768_000
# Examples in a data set, and lines of a list.
EXAMPLES = 10_000_000
CLASSES = 100_000
