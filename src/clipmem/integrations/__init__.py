"""Steps and hooks for other libraries; each file imports one of them, which is an extra."""
