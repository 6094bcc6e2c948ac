"""Rebuild and verify the read models from the log, and redeliver events."""
