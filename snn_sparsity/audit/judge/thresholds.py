"""Every number that turns evidence into a word, with where it comes from."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What the answers hang on.

    Attributes:
        broken: A network is broken if the 95 % interval of its worst case ends at or below this share: half of what guessing among ten
            classes gets.
        few: Fewer images need a result beyond doubt: of 256, one image is 0.4 points, and a 95 % interval at most 12 points wide.
        level: Chance of any false accusation by an audit's comparisons together (Holm).
        beyond_doubt: The same, where there are fewer than ``few`` images.
        gain: What an arm must break more than the native attack, as a share of all images, outside the ball of those tried; less changes
            no conclusion.
        weakness: What the native attacks must break more than the quoted one, as a share of all images.
    """

    broken: float = 0.05
    few: int = 256
    level: float = 0.01
    beyond_doubt: float = 0.001
    gain: float = 0.02
    weakness: float = 0.05


CALIBRATED = Thresholds()
"""Chosen by ``make audit-bench`` on one half of its networks and reported on the other (docs/audit.md)."""
