"""The usual rewards: exact match, numeric match, regular expression, JSON schema."""
