"""Verbale: signed notices between States, replicated and provable."""

__version__ = "0.1.0"
