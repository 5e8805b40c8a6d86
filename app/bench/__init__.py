"""Measurements. Every figure is a ratio against what one core can do in the same run: machines are noisy."""
