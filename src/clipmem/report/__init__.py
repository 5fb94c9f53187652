"""Pages and terminal screens of finished runs. Imports no torch."""
