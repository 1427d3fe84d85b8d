"""`default`: whatever the method's source uses. The baseline of every selector."""

from attriboard.selector import Choice, Evidence, Selector

__all__ = ["Default"]


class Default(Selector):
    """Change nothing."""

    name = "default"
    source = "the method's paper or library"
    needs_spectrum = False

    def select(self, evidence: Evidence) -> Choice:
        """Keep the configuration."""
        return Choice({})
