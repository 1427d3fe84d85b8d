from attriboard.contracts.card import *  # noqa: F403
