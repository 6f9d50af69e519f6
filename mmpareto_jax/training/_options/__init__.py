"""The options of a run, by owner: light dataclasses, of which ``Config`` is made.

No data come in; out go the dataclasses, whose fields are flags with a default, a help
text and a limit, and whom they belong to. It may import, of ``training``, `_choices`
alone, and nothing heavy: it is read for ``mmpareto --help``.
"""
