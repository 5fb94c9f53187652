"""A study: its stages in order, the engine that trains its models, and a finished run read back."""
