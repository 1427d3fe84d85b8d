from attriboard.base.errors import *  # noqa: F403
