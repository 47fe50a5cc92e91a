"""What goes wrong, while it does: metrics for Prometheus, failures by run, and alerts where a share changes."""
