"""Rebuilding and verifying the read models from the log."""
