"""Adapters to PostgreSQL and Redis."""
