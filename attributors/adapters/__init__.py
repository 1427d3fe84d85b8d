"""Attributors of other libraries, run as they are, with their signs and their λ translated into ours."""

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Context


def require_whole_model(context: Context, library: str) -> None:
    """Refuse a context that attributes a part of the parameters: these libraries attribute all.

    Raises:
        NotApplicableError: parameters are frozen or left out.
    """
    names = {name for name, _ in context.model.named_parameters()}
    if left := sorted(names - set(context.attributed)):
        raise NotApplicableError(
            f"{library} attributes every parameter, and {len(left)} of {len(names)} are left out here, such as "
            f"{left[0]}; use a built-in method, or attribute all"
        )
