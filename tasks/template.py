"""The file that `attriboard tasks --template` prints: a task that works as it stands, to be changed piece by piece."""

TEMPLATE = '''"""My task: replace data, model, loss and recipe by your own.

    attriboard run my_task.py iffim --hp regularization=0.1
    attriboard select my_task.py iffim
    attriboard top my_task.py iffim --test 7
    attriboard groundtruth build my_task.py --masks 50 --repeats 2
    attriboard sweep my_task.py iffim --grid regularization=1e-6:10:15log
"""

from sklearn.datasets import load_diabetes
from torch import nn

import attriboard as ab

# Data: (inputs, targets) as arrays or tensors; or a dataset of such pairs, a DataLoader without shuffling, or a
# datasets.Dataset of two columns. Scores are about these rows, in this order.
x, y = load_diabetes(return_X_y=True)
x, y = x / x.std(0), (y - y.mean()) / y.std()
train, test = (x[:342], y[:342]), (x[342:], y[342:])


# Model: a function (or a class) without arguments that builds a new one. Its outputs must be one tensor with a row for
# each example. If the model returns something else, wrap it in a module whose forward returns, say, .logits.
def build():
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1))


# Loss: "squared_error", "cross_entropy" (class numbers), "binary_cross_entropy" (0 or 1: one answer, or several), or
# your own, one value for each example:
#
#     def loss(outputs, targets):
#         return nn.functional.huber_loss(outputs[:, 0], targets, reduction="none")

task = ab.define_task(
    "my_task",  # retrains are kept under this name
    model=build,
    train=train,
    test=test,
    loss="squared_error",
    # target="negative_loss",  # what is attributed: "margin", "negative_loss", or a function (outputs, targets) -> (n,)
    recipe=ab.Recipe(optimizer="adamw", learning_rate=1e-2, epochs=30, batch_size=32),
    # checkpoints=[...],       # trained models or their state dicts, instead of models that the recipe trains
    # vocabulary=[...],        # token number -> token, so that text is shown as text
)

if __name__ == "__main__":  # python my_task.py
    truth = ab.build_ground_truth(task, masks=50, repeats=2)  # says first what it costs; goes on where it stopped
    print(ab.evaluate(task, ["iffim", "trak", "grad_dot"], groundtruth=truth))
'''
