"""Model selection: race several endpoints on the same tasks, and publish the one that is worth its price."""
