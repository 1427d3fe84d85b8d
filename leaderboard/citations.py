"""A BibTeX entry that quotes one number: whose it is, what it is, and where it stands."""

from attriboard.leaderboard import formats
from attriboard.leaderboard.history import result, what
from attriboard.records.files import AnyRecord
from attriboard.records.model import AttributionRecord, SelectionRecord

_ESCAPES = str.maketrans({"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "λ": r"$\lambda$", "\u00a0": "~", "−": "$-$"})


def citation(record: AnyRecord, identity: str, url: str) -> str:
    """The entry; empty for a record that has no number.

    Args:
        record: the record.
        identity: its id.
        url: of the site, with a slash at its end; empty where that is unknown.
    """
    if getattr(record, "status", "ok") != "ok":
        return ""
    place = f"url    = {{{url}records/{identity}.html}}" if url else f"howpublished = {{AttriBoard record {identity}}}"
    return "\n".join(
        [
            f"@misc{{attriboard-{identity},",
            f"  title  = {{{{{quoted(record).translate(_ESCAPES)}}}}},",
            "  author = {{The AttriBoard authors}},",
            f"  year   = {{{record.created[:4]}}},",
            f"  {place},",
            f"  note   = {{Task version {record.task.version}, fingerprint {record.task.fingerprint[:12]}}}",
            "}",
        ]
    )


def quoted(record: AnyRecord) -> str:
    """A number in a line: `trak on mnist_lr, selected (λ = 10): LDS 0.483 [0.447, 0.534]`."""
    asked = what(record)
    asked = asked.removeprefix("LDS, ") if isinstance(record, AttributionRecord) else asked[0].lower() + asked[1:]
    configuration = record.selected if isinstance(record, SelectionRecord) else record
    chosen = formats.chosen_regularization(getattr(configuration, "hyperparameters", {}))
    question = f"{asked} ({chosen})" if chosen else asked
    return f"{record.title} on {record.task.name}, {question}: {result(record)}{_interval(record)}"


def _interval(record: AnyRecord) -> str:
    """The 95 % interval in brackets, of a number that has one."""
    number = (
        getattr(record, "lds", None) if isinstance(record, AttributionRecord) else getattr(record, "regret", record)
    )
    ends = getattr(number, "ci95", None)
    return f" [{formats.fixed(ends[0])}, {formats.fixed(ends[1])}]" if ends else ""
