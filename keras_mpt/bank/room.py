"""How many virtual tokens a bank makes room for."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Room:
    """Sizes that what is compiled has in it: as long as they stay, nothing is compiled anew.

    Attributes:
        shared: int. How many of a prompt's first virtual tokens are run once and kept: the length
            of the first adapter. Shorter ones share their first alone.
        longest: int. How many virtual tokens a row may have.
    """

    shared: int = 0
    longest: int = 0

    def make(self, length: int) -> None:
        """Makes room for an adapter's prompt."""
        self.shared = self.shared or length
        self.longest = max(self.longest, length)
