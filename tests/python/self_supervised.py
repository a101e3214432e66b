"""What the tests of SimCLR and CPC share: pairs of twins, and what is compared."""

import io

import torch


def twins(face, cpp, dtype=torch.float64, **options):
    """The Python model and the C++ one with its weights, in training mode."""
    torch.manual_seed(0)
    model = face(**options).to(dtype)
    twin = cpp(**options).to(dtype=dtype)
    assert list(twin.state_dict()) == list(model.state_dict())
    twin.load_state_dict(model.state_dict())
    return model, twin


def assert_twins_agree(model, twin, given, represented):
    """Loss, gradients and what batch norm kept; then features in evaluation mode."""
    losses = [model(*given), twin(*given)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=1e-12)
    for loss in losses:
        loss.backward()
    own, theirs = dict(model.named_parameters()), dict(twin.named_parameters())
    assert set(own) == set(theirs)
    for name, parameter in own.items():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-9, atol=1e-12)
    for (name, kept), (_, other) in zip(
        sorted(model.named_buffers()), sorted(twin.named_buffers()), strict=True
    ):
        torch.testing.assert_close(kept, other, rtol=1e-12, atol=1e-12, msg=name)
    model.eval(), twin.eval()
    with torch.no_grad():
        found = model.represent(represented)
        torch.testing.assert_close(found, twin.represent(represented), rtol=1e-12, atol=1e-12)
    assert found.shape[0] == represented.shape[0] and found.dim() == 2


def loss_history(model, batch, steps, rate):
    """Losses of so many steps of Adam; batch() makes what the model is given."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    losses = []
    for _ in range(steps):
        loss = model(*batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def scripted(model):
    """Written as TorchScript and read again."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(model), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


class Represent(torch.nn.Module):
    """What torch.export takes: a module that represents."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.represent(x)


def assert_exports(model, x, dynamic=True):
    """represent() of another batch size too."""
    model.eval()
    batch = {0: torch.export.Dim("n", min=2, max=4096)} if dynamic else None
    program = torch.export.export(
        Represent(model), (x,), dynamic_shapes=(batch,) if batch else None
    )
    for given in (x, torch.cat([x, 1 - x])) if dynamic else (x,):
        torch.testing.assert_close(program.module()(given), model.represent(given))
