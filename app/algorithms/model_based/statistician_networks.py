"""The networks of the Neural Statistician, as the authors' program has them.

Their norms take the statistics of all images and sets of a task in training, where the program takes those of its batch, and
running statistics in evaluation: a class and a query are then held for what they are, whatever lies beside them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from app.algorithms.model_based.gaussian import gaussian
from app.backbones.task_batch_norm import TaskBatchNorm
from app.errors import InputError
from app.scores.losses import widened


class VectorNorm(TaskBatchNorm):
    """`TaskBatchNorm` of vectors, of shape (..., components)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view_as(x)


class ParameterNorm(TaskBatchNorm):
    """`TaskBatchNorm` of the parameters of Gaussians, of shape (..., parameters), all of them one channel."""

    def __init__(self):
        super().__init__(1, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)[:, None])[:, 0].view_as(x)


def normalised(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    """The layer with the norm of its outputs and ELU after it."""
    norm = VectorNorm(layer.out_features) if isinstance(layer, nn.Linear) else TaskBatchNorm(layer.out_channels)
    return [layer, norm, nn.ELU()]


def hidden_layer(inputs: int, width: int) -> list[nn.Module]:
    return normalised(nn.Linear(inputs, width, bias=False))


def convolution(inputs: int, outputs: int, stride: int = 1, padding: int = 1) -> list[nn.Module]:
    return normalised(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=padding, bias=False))


class VectorSum(nn.Module):
    """The sum of what a linear layer of its own makes of each of several vectors.

    Args:
        input_sizes: components of each vector.
        output_size: components of the sum.
    """

    def __init__(self, input_sizes: Sequence[int], output_size: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, output_size, bias=not first) for first, size in enumerate(input_sizes))

    def forward(self, *inputs: Tensor) -> Tensor:
        return sum(layer(vector) for layer, vector in zip(self.layers, inputs, strict=True))


class GaussianLayer(nn.Module):
    """A linear layer to a diagonal Gaussian, whose means and logarithms of variances are normalised together.

    Args:
        width: components of the input.
        output_size: components of the Gaussian.
    """

    def __init__(self, width: int, output_size: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 2 * output_size), ParameterNorm())

    def forward(self, hidden: Tensor) -> Tensor:
        """Means and then standard deviations."""
        return gaussian(self.layers(hidden), lambda log_variance: (0.5 * log_variance).exp())


class GaussianMLP(nn.Module):
    """From several vectors through one residual block to a diagonal Gaussian.

    Args:
        input_sizes: components of each vector.
        output_size: components of the Gaussian.
        width: units of every layer.
        num_layers: layers of the residual block.
    """

    def __init__(self, input_sizes: Sequence[int], output_size: int, width: int, num_layers: int):
        super().__init__()
        self.inputs = VectorSum(input_sizes, width)
        layers = [layer for _ in range(num_layers) for layer in hidden_layer(width, width)]
        self.block = nn.Sequential(*layers[:-1])  # the last ELU comes after the sum
        self.outputs = GaussianLayer(width, output_size)
        self.elu = nn.ELU()

    def forward(self, *inputs: Tensor) -> Tensor:
        hidden = self.elu(self.inputs(*inputs))
        return self.outputs(self.elu(hidden + self.block(hidden)))


class ConvEncoder(nn.Module):
    """Three levels of two 3x3 convolutions and one of stride 2; the width doubles at each level.

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
            layers += [*convolution(channels, after), *convolution(after, after), *convolution(after, after, stride=2)]
            channels, size = after, [-(-side // 2) for side in size]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.num_features = channels * size[0] * size[1]

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class ConvDecoder(nn.Module):
    """Three levels of two 3x3 convolutions and one transposed one of stride 2, from vectors to the logits of the pixels.

    Args:
        input_sizes: components of each vector.
        image_shape: channels, height and width.
        hidden_size: units of the layer before the convolutions.
        width: channels of the last level.
    """

    def __init__(self, input_sizes: Sequence[int], image_shape: tuple[int, int, int], hidden_size: int, width: int):
        super().__init__()
        channels, *size = image_shape
        small = [-(-side // 8) for side in size]
        before = width << 2
        self.inputs = VectorSum(input_sizes, hidden_size)
        layers: list[nn.Module] = [nn.ELU(), nn.Linear(hidden_size, before * small[0] * small[1])]
        layers.append(nn.Unflatten(-1, (before, *small)))
        for level in (2, 1, 0):
            after = width << level
            layers += convolution(before, after)
            # The last but one doubling may have made more pixels than half of the image's: those at the edge are left out.
            cut = [4 * least - -(-side // 2) if level == 0 else 0 for least, side in zip(small, size, strict=True)]
            layers += [_bordered(*cut), *convolution(after, after, padding=0)]
            layers += normalised(nn.ConvTranspose2d(after, after, 2, stride=2, bias=False))
            before = after
        odd = [side % 2 for side in size]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 1), nn.ZeroPad2d((0, -odd[1], 0, -odd[0])))

    def forward(self, *vectors: Tensor) -> Tensor:
        """Logits of shape (rows, *image) of vectors of shape (rows, components)."""
        return widened(self.layers(self.inputs(*vectors)))


def _bordered(rows: int, columns: int) -> nn.ZeroPad2d:
    """A border of zeros for a 3x3 convolution, so many rows and columns less than keep the size."""
    return nn.ZeroPad2d((1 - columns // 2, 1 - (columns + 1) // 2, 1 - rows // 2, 1 - (rows + 1) // 2))


class StatisticNetwork(nn.Module):
    """The posterior q(c | D) of the context, from the mean over a set of what a layer makes of each image's features.

    Mean pooling makes it invariant to the order of the set.

    Args:
        num_features: of an image.
        context_size: components of c.
        width: units of a hidden layer, one before and two after the pooling.
        sees_size: one over the number of images is an input after the pooling: a larger set can make the context more certain.
    """

    def __init__(self, num_features: int, context_size: int, width: int, sees_size: bool):
        super().__init__()
        self.sees_size = sees_size
        self.before = nn.Sequential(*hidden_layer(num_features, width))
        self.after = nn.Sequential(
            *hidden_layer(width + sees_size, width), *hidden_layer(width, width), GaussianLayer(width, context_size)
        )

    def forward(self, features: Tensor, membership: Tensor | None = None) -> Tensor:
        """Posteriors of all sets of each task.

        Args:
            features: of images, of shape (tasks, images, features).
            membership: 1 where an image is in a set and 0 elsewhere, of shape (tasks, images, sets); null for a set an image.
        """
        pooled, counts = self.before(features), torch.ones_like(features[..., :1])
        if membership is not None:
            counts = membership.sum(1)[..., None]
            pooled = membership.mT @ pooled / counts
        return self.after(torch.cat([pooled, 1 / counts], -1) if self.sees_size else pooled)


class StatisticianNetworks(nn.Module):
    """All networks of the Neural Statistician.

    Args:
        input_shape: channels, height and width of an image.
        output_size: not used, there is no head.
        context_size: components of the context c.
        latent_size: components of each latent z.
        num_latents: stochastic layers.
        hidden_size: units of every fully connected hidden layer.
        num_layers: layers of the residual blocks of the latents' networks.
        width: channels of the first convolutions.
        sees_size: as in `StatisticNetwork`.
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
        sees_size: bool,
    ):
        super().__init__()
        if len(input_shape) != 3:
            raise InputError(
                f"NeuralStatistician takes images, the data has inputs of shape {tuple(input_shape)}; choose image data such as "
                "--data Glyphs, or another --model"
            )
        self.encoder = ConvEncoder(input_shape, width)
        features = self.encoder.num_features
        self.statistic = StatisticNetwork(features, context_size, hidden_size, sees_size)
        # z_L, the first to be drawn, stands first and has no latent above it.
        above = [[context_size], *[[context_size, latent_size]] * (num_latents - 1)]
        self.prior = nn.ModuleList(GaussianMLP(sizes, latent_size, hidden_size, num_layers) for sizes in above)
        self.posterior = nn.ModuleList(GaussianMLP([*sizes, features], latent_size, hidden_size, num_layers) for sizes in above)
        self.decoder = ConvDecoder([context_size, num_latents * latent_size], input_shape, hidden_size, width)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_normal_(module.weight, gain=nn.init.calculate_gain("relu"))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
