"""Writes text with the model that cpp_transformer trained: the same weights, in Python.

python sample.py weights.pt "The operator" --length 300
"""

import argparse

import torch
from torch import Tensor, nn

import tilewright

VOCABULARY, CONTEXT, HEAD_SIZE = 256, 128, 32


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(self.attention_norm(x)).unflatten(-1, (3, -1, HEAD_SIZE))
        query, key, value = (y.transpose(1, 2) for y in heads.unbind(2))
        out = tilewright.flash_attention(query, key, value, causal=True)
        x = x + self.merge(out.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.mlp_norm(x))))


class TextModel(nn.Module):
    """model.h has this in C++, and the dropout that training adds."""

    def __init__(self, width: int = 128, layers: int = 3):
        super().__init__()
        self.bytes = nn.Embedding(VOCABULARY, width)
        self.places = nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, text: Tensor) -> Tensor:
        """(B, S) bytes to the scores of the byte behind each, (B, S, 256)."""
        x = self.bytes(text) + self.places(torch.arange(text.shape[1], device=text.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def load(path: str) -> TextModel:
    model = TextModel()
    model.load_state_dict(tilewright.models.read_checkpoint(path))
    return model.eval()


@torch.no_grad()
def sample(model: TextModel, prompt: str, length: int, temperature: float = 0.7) -> str:
    """The prompt and so many bytes more."""
    text = list(prompt.encode())
    for _ in range(length):
        scores = model(torch.tensor([text[-CONTEXT:]]))[0, -1]
        text.append(int(torch.multinomial((scores / temperature).softmax(-1), 1)))
    return bytes(text).decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("prompt")
    parser.add_argument("--length", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not arguments.prompt:
        parser.error("the prompt must have a character at least")
    torch.manual_seed(arguments.seed)
    print(sample(load(arguments.weights), arguments.prompt, arguments.length))


if __name__ == "__main__":
    main()
