"""Every number that turns evidence into a word, with where it comes from."""

BROKEN = 0.05
"""A network is broken if the 95 % interval of its worst case ends at or below this share: half of what guessing among ten classes gets."""
FEW = 256
"""Fewer images need a result beyond doubt: of 256, one image is 0.4 points, and a 95 % interval at most 12 points wide."""
LEVEL = 0.01
"""Chance of any false accusation by an audit's comparisons together (Holm)."""
BEYOND_DOUBT = 0.001
"""The same, where there are fewer than ``FEW`` images."""
