"""Algorithms that learn what an agent's model is told: demonstrations, and the text of prompts."""
