"""Several algorithms compared on one budget: on the same tasks, with the same seed, from the same beginning.

sections      the config of each algorithm, made of one file
accounts      what a run cost: rollouts, tokens, dollars, seconds
recommending  which of them is shown to be better, and which is worth it: pure functions
runs          their runs, each resumable
rows          what each run came to
comparison    all of it, one after the other
texts         what came of it, as Markdown
"""
