"""The critic of a language model."""

from torch import Tensor, nn


class Critic(nn.Sequential):
    """Values from what the last layer says behind a dialogue.

    Args:
        width: Numbers that the last layer says.
        scale: What the output is multiplied by.
        gradient: Share of the gradient that reaches the language model, 0 to 1.
    """

    def __init__(self, width: int, scale: float, gradient: float) -> None:
        last = nn.Linear(64, 1)
        nn.init.zeros_(last.weight)
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 64), nn.Tanh(), last)
        self._scale, self._gradient = scale, gradient

    def forward(self, hidden_BH: Tensor) -> Tensor:
        """Return values, shape (B, 1), in float32."""
        hidden_BH = hidden_BH.float()
        let_through = hidden_BH * self._gradient
        values_BH = let_through + (hidden_BH - let_through).detach()
        for layer in self:
            values_BH = layer(values_BH)
        return values_BH * self._scale
