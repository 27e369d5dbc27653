"""From evidence to two answers; without torch."""
