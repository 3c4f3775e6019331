"""The parts, the main one first."""

from studies.transfer.heads.part import HEADS
from studies.transfer.part import Part
from studies.transfer.words.part import WORDS

PARTS: dict[str, Part] = {part.name: part for part in (WORDS, HEADS)}
