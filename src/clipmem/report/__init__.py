"""Pages that open offline, and terminal screens, of what finished runs hold. No torch."""
