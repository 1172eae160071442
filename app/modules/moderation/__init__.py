"""Moderation: the word filter."""
