"""Where a run is kept unless a config says otherwise. Imports nothing, so that `agl --help` may tell."""

STORE = "sqlite:///runs/agentlightning.db"
DIRECTORY = "runs"
LIVE_RUN = "live"
"""The name of the run that deployed agents record into, and of what they are given."""
LIVE_BUFFER = "runs/live"
"""The folder of what a deployed agent has recorded and its store has not acknowledged."""
