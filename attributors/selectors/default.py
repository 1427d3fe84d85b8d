"""`default`: whatever the method's source uses. The baseline of every selector."""

from attriboard.contracts.selector import Choice, Evidence, Selector


class Default(Selector):
    """Change nothing."""

    name = "default"
    source = "the method's paper or library"
    needs_spectrum = False

    def select(self, evidence: Evidence) -> Choice:
        """Keep the configuration."""
        return Choice({})
