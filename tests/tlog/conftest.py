"""Hypothesis without a stopwatch: a busy machine is not a failing test. The suite's own time limit catches a hang."""

from hypothesis import settings

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
