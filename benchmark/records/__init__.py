"""What is published: immutable results, re-runs of them, and where they come from."""

from attriboard.records.cost import SelectionCostRecord as SelectionCostRecord
from attriboard.records.files import AnyRecord as AnyRecord
from attriboard.records.files import read_record as read_record
from attriboard.records.files import read_records as read_records
from attriboard.records.files import record_schema as record_schema
from attriboard.records.files import write_record as write_record
from attriboard.records.model import AttributionRecord as AttributionRecord
from attriboard.records.model import LdsResult as LdsResult
from attriboard.records.model import SelectionRecord as SelectionRecord
from attriboard.records.uses import BrittlenessRecord as BrittlenessRecord
from attriboard.records.uses import MislabelRecord as MislabelRecord
from attriboard.records.uses import RemovalRecord as RemovalRecord
