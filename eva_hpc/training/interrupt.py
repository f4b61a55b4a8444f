"""How training says that it was told to stop and can go on later."""

from __future__ import annotations


class Interrupted(Exception):
    """Training was told to stop and has saved what it needs to go on."""
