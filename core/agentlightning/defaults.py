"""Where a run is kept unless a config says otherwise. Imports nothing, so that `agl --help` may tell."""

STORE = "sqlite:///runs/agentlightning.db"
DIRECTORY = "runs"
LIVE_BUFFER = "runs/live"
"""The folder of what a deployed agent has recorded and its store has not acknowledged."""
