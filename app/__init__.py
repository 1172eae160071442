"""Magpie IM: self-hosted group chat."""

__version__ = "0.1.0"
