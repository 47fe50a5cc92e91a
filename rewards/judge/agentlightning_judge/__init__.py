"""Judges and users' feedback as rewards."""
