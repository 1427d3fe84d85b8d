"""What tasks, attributors and selectors may know of AttriBoard; their authors import it from here.

Score matrices are (n_test, n_train), float32; a positive score says that including the training example raises the
target of the test example.
"""

from attriboard.contracts.attributor import Attributor as Attributor
from attriboard.contracts.context import Checkpoint as Checkpoint
from attriboard.contracts.context import Context as Context
from attriboard.contracts.hyperparameter import Hyperparameter as Hyperparameter
from attriboard.contracts.selector import Choice as Choice
from attriboard.contracts.selector import Evidence as Evidence
from attriboard.contracts.selector import Selector as Selector
from attriboard.contracts.task import Dataset as Dataset
from attriboard.contracts.task import Examples as Examples
from attriboard.contracts.task import Task as Task
