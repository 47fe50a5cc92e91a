"""Training over the API: runs that are submitted to a server, and trained in processes of their own beside it."""
