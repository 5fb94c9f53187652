"""A package beside clipmem that adds one protocol, alignment, mitigation, data source and report section."""
