"""Model selection: which of several endpoints is worth its price, for all tasks or for each."""
