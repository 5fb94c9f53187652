"""Models behind one protocol, `DualEncoder`; each adapter is the only importer of its library."""
