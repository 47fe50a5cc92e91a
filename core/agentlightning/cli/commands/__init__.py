"""The commands of ``agl``, one module each."""
