"""Compare finished runs and judge the published findings: tables in, tables and verdicts out; no files, no text."""
