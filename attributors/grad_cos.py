"""Grad-Cos: cosines of gradients.

Charpiat et al., "Input similarity from the neural network perspective", NeurIPS 2019 (arXiv 2102.05262), whose
symmetric similarity divides by both lengths:

    τ(z', i) = −⟨∇L(z_i), ∇f(z')⟩ / (‖∇L(z_i)‖ ‖∇f(z')‖),  averaged over checkpoints

Unlike inner products, cosines are not led by the few training examples with large gradients.

Deviations: the test side is the gradient of the attributed f instead of the network's output; gradients are
exact, not projected; an example without a gradient scores 0.
"""

from attriboard.attributors.grad_dot import GradDot


class GradCos(GradDot):
    """Cosines of training-loss and target gradients."""

    name = "grad_cos"
    cosine = True
