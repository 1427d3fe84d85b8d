from attriboard.base.errors import *
