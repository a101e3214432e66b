"""Deep InfoMax: representations that say as much as possible about every place of their image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tilewright._arguments import check_integers, check_temperature, check_tensor
from tilewright.models.image_encoder import doubling_encoder


class DeepInfoMax(nn.Module):
    """Hjelm et al. 2019 (arXiv:1808.06670), its local objective with InfoNCE as the bound.

    An image's vector is scored against the vectors of places: its own are positives, those of all
    other images of the batch negatives (:func:`tilewright.local_global_infomax`). Both are
    projected by networks of their own and normalised to length 1. Given a second view of each
    image, the vector of one view is scored against the places of the other (Bachman et al. 2019,
    arXiv:1906.00910).

    Args:
        in_channels, width, depth: of the encoder, a ConvEncoder: channels of its first layer, each
            further one having twice as many, and the number of layers.
        local_block: whose map's places are scored; -1 counts from the last.
        projection: length of the vectors that are multiplied.
        hidden: width of the projecting networks.
        temperature: what products are divided by.
        prior: whether there is a discriminator, which the "prior" loss needs.
    """

    def __init__(
        self,
        in_channels: int = 1,
        width: int = 32,
        depth: int = 3,
        local_block: int = 1,
        projection: int = 64,
        hidden: int = 128,
        temperature: float = 0.2,
        prior: bool = False,
    ):
        super().__init__()
        self.encoder = doubling_encoder("DeepInfoMax", in_channels, width, depth)
        check_integers("DeepInfoMax", local_block=local_block, projection=projection, hidden=hidden)
        if not -depth <= local_block < depth:
            raise ValueError(
                f"tilewright::DeepInfoMax: local_block must be in [{-depth}, {depth}), got "
                f"{local_block}"
            )
        check_temperature("tilewright::DeepInfoMax: temperature", temperature)
        if projection < 1 or hidden < 1:
            raise ValueError(
                "tilewright::DeepInfoMax: projection and hidden must be positive, got "
                f"{projection} and {hidden}"
            )
        self.local_block = int(local_block % depth)
        projection, hidden = int(projection), int(hidden)
        self.temperature = float(temperature)
        features = self.encoder.out_features
        self.whole = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, projection)
        )
        self.local = nn.Sequential(
            nn.Conv2d(int(width) << self.local_block, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, projection, 1),
        )
        self.discriminator = nn.Sequential()
        if prior:
            self.discriminator = nn.Sequential(
                nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, 1)
            )

    def forward(self, images: Tensor, views: Tensor | None = None) -> Tensor:
        """The local-global loss of images (N, C, H, W), N > 1; of a second view of each, of
        the same shape, where it is given. One number, in nats."""
        check_tensor("tilewright::DeepInfoMax: images", images, "(N, C, H, W)")
        whole, local = self._projected(images)
        if views is None:
            return torch.ops.tilewright.local_global_infomax(whole, local, self.temperature)
        check_tensor("tilewright::DeepInfoMax: views", views, "(N, C, H, W)")
        if views.shape != images.shape:
            raise ValueError(
                f"tilewright::DeepInfoMax: views must have shape {list(images.shape)}, as images, "
                f"got {list(views.shape)}"
            )
        other_whole, other_local = self._projected(views)
        forth = torch.ops.tilewright.local_global_infomax(whole, other_local, self.temperature)
        back = torch.ops.tilewright.local_global_infomax(other_whole, local, self.temperature)
        return 0.5 * (forth + back)

    @torch.jit.export
    def prior_loss(self, images: Tensor, noise: Tensor) -> Tensor:
        """Matches the prior: the cross entropy of a discriminator that tells noise from
        representations, squashed to (0, 1); the encoder is moved against it.

        Args:
            images: (N, C, H, W).
            noise: (N, features) of the uniform distribution on [0, 1).
        """
        if len(self.discriminator) == 0:
            raise ValueError("tilewright::DeepInfoMax: prior_loss needs prior=True")
        check_tensor("tilewright::DeepInfoMax: noise", noise, "(N, features)")
        squashed = torch.sigmoid(self.encoder(images))
        if noise.shape != squashed.shape:
            raise ValueError(
                f"tilewright::DeepInfoMax: noise must have shape {list(squashed.shape)}, got "
                f"{list(noise.shape)}"
            )
        turned = 2.0 * squashed.detach() - squashed  # the same values, the gradient's sign turned
        real = F.softplus(-self.discriminator(noise)).mean()
        return real + F.softplus(self.discriminator(turned)).mean()

    @torch.jit.export
    def represent(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, features), the encoder's."""
        return self.encoder(images)

    def _projected(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of length 1: (N, P) of images, (N, L, P) of their places."""
        maps = self.encoder.maps(images)
        whole = self.whole(maps[-1].mean(dim=[2, 3]))
        local = self.local(maps[self.local_block]).flatten(2).transpose(1, 2)
        return F.normalize(whole, dim=1), F.normalize(local, dim=2)
