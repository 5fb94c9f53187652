"""Models behind the protocol `DualEncoder`, with one adapter per library."""
