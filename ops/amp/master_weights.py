"""float32 copies of 16-bit parameters, for updates that 16 bits would round away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tilewright.amp.operators import stochastic_round_


class MasterWeights:
    """A model's parameters in float32, which an optimizer updates (arXiv:1710.03740, section 3.1)::

        model.to(torch.bfloat16)
        masters = MasterWeights(model.parameters())
        optimizer = torch.optim.AdamW(masters.parameters(), lr=1e-3)
        ...
        scaler.scale(loss).backward()
        masters.take_gradients_()  # after each backward(): they add up in float32
        scaler.step(optimizer)
        scaler.update()
        masters.give_back_()
        optimizer.zero_grad()

    Parameters of float32 and float64 are their own masters.

    Args:
        parameters: of the model, or pairs of names and parameters: then `named_parameters` gives an
            optimizer the masters' names, for the errors of a LossScaler.
        stochastic: bfloat16 parameters are rounded up or down by chance, so that their expectation
            is the master (:func:`stochastic_round_`), in place of to the nearest.
        seed: of that chance; drawn from torch's generator where it is None.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        stochastic: bool = False,
        seed: int | None = None,
    ) -> None:
        if isinstance(parameters, (Tensor, nn.Module)):
            raise TypeError(
                "parameters must be an iterable of parameters, such as model.parameters(), got "
                f"{type(parameters).__name__}"
            )
        given = list(parameters)
        named = bool(given) and isinstance(given[0], tuple)
        if any(isinstance(one, tuple) != named or (named and len(one) != 2) for one in given):
            raise ValueError("parameters must be all alone or all in pairs of name and parameter")
        self._names = [one[0] for one in given] if named else None
        self._model = [one[1] for one in given] if named else given
        _check_parameters(self._model)
        self._stochastic = stochastic
        if seed is None:
            seed = int(torch.randint(2**62, ())) if stochastic else 0
        if not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
            raise ValueError(f"seed must be an int of 64 bits, got {seed!r}")
        self._seed = seed
        self._rounds = 0
        self._masters = [
            nn.Parameter(p.detach().float(), requires_grad=p.requires_grad) if _is_short(p) else p
            for p in self._model
        ]

    def parameters(self) -> list[Tensor]:
        """For the optimizer, in the order that was given."""
        return list(self._masters)

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """The same with the names that were given.

        Raises:
            ValueError: where none were.
        """
        if self._names is None:
            raise ValueError("MasterWeights was given parameters without names")
        return list(zip(self._names, self._masters, strict=True))

    def take_gradients_(self) -> None:
        """Moves gradients to the masters, in float32, and adds to those that are there."""
        for parameter, master in zip(self._model, self._masters, strict=True):
            if parameter is master or parameter.grad is None:
                continue
            grad = parameter.grad.to(master.dtype)
            parameter.grad = None
            if master.grad is None:
                master.grad = grad
            elif master.grad.is_sparse and not grad.is_sparse:
                master.grad = grad + master.grad
            else:
                master.grad += grad

    @torch.no_grad()
    def give_back_(self) -> None:
        """Writes the masters, rounded, to the model's parameters; by chance also where no step
        was taken, and then they change all the same."""
        by_chance: dict[torch.device, tuple[list[Tensor], list[Tensor]]] = {}
        for parameter, master in zip(self._model, self._masters, strict=True):
            if parameter is master:
                continue
            if self._stochastic and parameter.dtype == torch.bfloat16:
                lists = by_chance.setdefault(parameter.device, ([], []))
                lists[0].append(parameter)
                lists[1].append(master)
            else:
                parameter.copy_(master)
        for device, (outputs, inputs) in by_chance.items():
            state = torch.tensor([self._seed, self._rounds], device=device)
            stochastic_round_(outputs, inputs, state)
        self._rounds += 1

    @torch.no_grad()
    def read_model_(self) -> None:
        """Makes the masters what the model's parameters are, as after loading the model alone."""
        for parameter, master in zip(self._model, self._masters, strict=True):
            if parameter is not master:
                master.copy_(parameter)

    def state_dict(self) -> dict[str, Any]:
        """The masters, and where chance stands."""
        return {
            "masters": [master.detach() for master in self._masters],
            "seed": self._seed,
            "rounds": self._rounds,
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Reads a state dict and writes it to the model too, rounded as ``give_back_`` did last:
        the model that was saved beside it after that, whichever of the two is loaded first.

        Raises:
            ValueError: where it is of other parameters; nothing is changed then.
        """
        masters = state_dict["masters"]
        shapes = [tuple(master.shape) for master in masters]
        own = [tuple(master.shape) for master in self._masters]
        if shapes != own:
            raise ValueError(f"expected masters of shapes {own}, got {shapes}")
        seed, rounds = state_dict["seed"], state_dict["rounds"]
        for name, number in (("seed", seed), ("rounds", rounds)):
            if not isinstance(number, int) or not -(2**63) <= number < 2**63:
                raise ValueError(f"{name} must be an int of 64 bits, got {number!r}")
        self._seed, self._rounds = seed, rounds
        for master, value in zip(self._masters, masters, strict=True):
            master.copy_(value)
        self._rounds -= 1  # the last round again, of the same chance
        self.give_back_()


def _check_parameters(parameters: list[Any]) -> None:
    places: dict[int, int] = {}
    for place, parameter in enumerate(parameters):
        if not isinstance(parameter, Tensor) or not parameter.is_floating_point():
            kind = parameter.dtype if isinstance(parameter, Tensor) else type(parameter).__name__
            raise ValueError(f"parameter {place} must be a floating tensor, got {kind}")
        first = places.setdefault(id(parameter), place)
        if first != place:
            raise ValueError(f"parameter {place} is parameter {first} again: give each one once")


def _is_short(parameter: Tensor) -> bool:
    return parameter.dtype in (torch.float16, torch.bfloat16)
