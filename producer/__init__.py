"""Folder -> queue: notices what changed, keeps the ledger, and rings for the workers."""
