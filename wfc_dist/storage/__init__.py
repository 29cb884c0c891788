"""Bytes that survive a crash: durable files, object storage, its mirror and its lock."""
