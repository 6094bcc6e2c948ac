"""Consumers of the feed: positions that the ledger keeps, pushes in order, replays of deliveries. Every push is a reader of the log."""
