from attriboard.contracts.card import *
