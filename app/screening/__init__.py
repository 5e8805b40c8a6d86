"""Screening: who is this, was this refused before, and whom to ask. See docs/screening.md."""
