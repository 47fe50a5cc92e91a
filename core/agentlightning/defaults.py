"""Where a run is kept unless a config says otherwise. Imports nothing, so that `agl --help` may tell."""

STORE = "sqlite:///runs/agentlightning.db"
DIRECTORY = "runs"
