"""disentkit: learn disentangled representations by touching them.

Every method here maps images to a code made of named blocks and back, and calls itself disentangled when each block
governs one factor. Start with `disentkit.workbench` (train, load_or_train, open_run), `disentkit.data.load`,
`disentkit.metrics` and `disentkit.explore`; the command `disentkit --help` shows the same from a terminal.

Importing the package imports none of them, so it stays fast.
"""

__version__ = "0.1.0"
