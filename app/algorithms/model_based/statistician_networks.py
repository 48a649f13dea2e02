"""The networks of the Neural Statistician.

Their norms take the statistics of one example alone (layer norm), where the authors' program has batch norm: support sets,
queries and all tasks of an outer step are encoded in one batch, and what an image is held for must not depend on which others
lie beside it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from app.algorithms.model_based.gaussian import gaussian
from app.errors import InputError
from app.scores.losses import widened


def hidden_layers(inputs: int, width: int, num_layers: int) -> list[nn.Module]:
    """Linear layers with layer norm and ELU after each."""
    layers: list[nn.Module] = []
    for layer in range(num_layers):
        layers += [nn.Linear(width if layer else inputs, width, bias=False), nn.LayerNorm(width), nn.ELU()]
    return layers


def normalised(convolution: nn.Module) -> list[nn.Module]:
    """A convolution with layer norm over channels and pixels, and ELU, after it."""
    return [convolution, nn.GroupNorm(1, convolution.out_channels), nn.ELU()]


class GaussianMLP(nn.Module):
    """A fully connected network from several vectors, laid side by side, to a diagonal Gaussian.

    Args:
        input_sizes: components of each vector.
        output_size: components of the Gaussian.
        width: units of a hidden layer.
        num_layers: hidden layers.
    """

    def __init__(self, input_sizes: Sequence[int], output_size: int, width: int, num_layers: int):
        super().__init__()
        self.layers = nn.Sequential(*hidden_layers(sum(input_sizes), width, num_layers), nn.Linear(width, 2 * output_size))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Means and then standard deviations, whose networks' outputs are the logarithms of variances."""
        return gaussian(self.layers(torch.cat(inputs, -1)), lambda log_variance: (0.5 * log_variance).exp())


class ConvEncoder(nn.Module):
    """Three levels of a 3x3 convolution and a 3x3 convolution of stride 2; the width doubles at each level.

    Args:
        image_shape: channels, height and width.
        width: channels of the first level.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int):
        super().__init__()
        channels, *size = image_shape
        layers: list[nn.Module] = []
        for level in range(3):
            after = width << level
            layers += normalised(nn.Conv2d(channels, after, 3, padding=1, bias=False))
            layers += normalised(nn.Conv2d(after, after, 3, stride=2, padding=1, bias=False))
            channels, size = after, [-(-side // 2) for side in size]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.num_features = channels * size[0] * size[1]

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`, from vectors to the logits of the pixels.

    Args:
        num_inputs: components of a vector.
        image_shape: channels, height and width.
        width: channels of the last hidden level.
    """

    def __init__(self, num_inputs: int, image_shape: tuple[int, int, int], width: int):
        super().__init__()
        channels, *size = image_shape
        sizes = [size]
        for _ in range(3):
            sizes.append([-(-side // 2) for side in sizes[-1]])
        height, side = sizes[3]
        layers: list[nn.Module] = [nn.Linear(num_inputs, (width << 2) * height * side), nn.ELU()]
        layers.append(nn.Unflatten(-1, (width << 2, height, side)))
        for level in (2, 1, 0):
            before = width << level
            # A transposed convolution makes 2n - 1 pixels of n: one more where the size was even.
            more = [1 - target % 2 for target in sizes[level]]
            options = {"stride": 2, "padding": 1, "output_padding": more, "bias": False}
            layers += normalised(nn.ConvTranspose2d(before, before, 3, **options))
            if level:
                layers += normalised(nn.Conv2d(before, before // 2, 3, padding=1, bias=False))
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, vectors: Tensor) -> Tensor:
        return widened(self.layers(vectors))


class StatisticNetwork(nn.Module):
    """The posterior q(c | D) of the context, from the mean over a set of what an MLP makes of each image's features.

    Mean pooling makes it invariant to the order of the set. How many images the mean is of, as one over their number, is an
    input of the layers after it: a larger set makes the context more certain.

    Args:
        num_features: of an image.
        context_size: components of c.
        width: units of a hidden layer.
        num_layers: hidden layers before, and after, the pooling.
    """

    def __init__(self, num_features: int, context_size: int, width: int, num_layers: int):
        super().__init__()
        self.before = nn.Sequential(*hidden_layers(num_features, width, num_layers))
        self.after = GaussianMLP((width, 1), context_size, width, num_layers)
        # Narrow posteriors at the start: the noise of hundreds of wide ones hides the set, and the decoder learns to ignore them.
        with torch.no_grad():
            self.after.layers[-1].bias[context_size:] -= 4

    def forward(self, features: Tensor, membership: Tensor) -> Tensor:
        """Posteriors of all sets of each task.

        Args:
            features: of images, of shape (tasks, images, features).
            membership: 1 where an image is in a set and 0 elsewhere, of shape (tasks, images, sets).
        """
        counts = membership.sum(1)[..., None]
        pooled = membership.transpose(1, 2) @ self.before(features) / counts
        return self.after(pooled, 1 / counts)


class StatisticianNetworks(nn.Module):
    """All networks of the Neural Statistician.

    Args:
        input_shape: channels, height and width of an image.
        output_size: not used, there is no head.
        context_size: components of the context c.
        latent_size: components of each latent z.
        num_latents: stochastic layers.
        hidden_size: units of every fully connected hidden layer.
        num_layers: hidden layers of every fully connected network.
        width: channels of the first convolutions.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int | None,
        context_size: int,
        latent_size: int,
        num_latents: int,
        hidden_size: int,
        num_layers: int,
        width: int,
    ):
        super().__init__()
        if len(input_shape) != 3:
            raise InputError(
                f"NeuralStatistician takes images, the data has inputs of shape {tuple(input_shape)}; choose image data such as "
                "--data Glyphs, or another --model"
            )
        self.encoder = ConvEncoder(input_shape, width)
        features = self.encoder.num_features
        self.statistic = StatisticNetwork(features, context_size, hidden_size, num_layers)
        # z_L, the first to be drawn, stands first and has no latent above it.
        above = [0] + [latent_size] * (num_latents - 1)
        self.prior = nn.ModuleList(GaussianMLP((context_size, up), latent_size, hidden_size, num_layers) for up in above)
        self.posterior = nn.ModuleList(
            GaussianMLP((context_size, up, features), latent_size, hidden_size, num_layers) for up in above
        )
        self.decoder = ConvDecoder(context_size + num_latents * latent_size, input_shape, width)
