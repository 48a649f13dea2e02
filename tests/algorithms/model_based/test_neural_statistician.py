"""The Neural Statistician against torch.distributions, quadrature and hand-made cases."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.gradients import stacked_difference_error
from helpers.small import METHODS, Blots, algorithm_for, method_for, trainer
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.testing import assert_close

from app.algorithms.model_based.neural_statistician import NeuralStatistician, Noise
from app.algorithms.model_based.pose import posed
from app.algorithms.model_based.statistician_networks import ConvDecoder, ConvEncoder
from app.backbones.task_batch_norm import TaskBatchNorm
from app.episode import Episode
from app.errors import InputError

SIZES = METHODS["NeuralStatistician"][1]

pytestmark = pytest.mark.usefixtures("float64")


def statistician(shape=(1, 8, 8), ways=3, **options) -> NeuralStatistician:
    torch.manual_seed(0)
    algorithm = NeuralStatistician(input_shape=shape, output_size=ways, **SIZES | options)
    with torch.no_grad():  # far from the start
        for weight in algorithm.parameters():
            weight += 0.2 * torch.randn_like(weight)
    norms = [module for module in algorithm.modules() if isinstance(module, TaskBatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    outcome = algorithm.outcome(params_of(algorithm), random_batch(shape, ways=ways))
    algorithm.keep_statistics(outcome.statistics)  # running statistics of these weights
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return algorithm


def params_of(algorithm) -> dict[str, Tensor]:
    return dict(algorithm.named_parameters())


def as_normal(gaussian: Tensor) -> Normal:
    return Normal(*gaussian.chunk(2, -1))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 12), (1, 8, 8), (2, 5, 1)])
def test_images_of_any_size(shape):
    encoder, decoder = ConvEncoder(shape, 2), ConvDecoder([4, 5], shape, 6, 2)
    assert encoder(torch.rand(3, *shape)).shape == (3, encoder.num_features)
    assert decoder(torch.rand(3, 4), torch.rand(3, 5)).shape == (3, *shape)


def test_the_networks_are_those_of_the_authors_program():
    """Numbers of weights counted from its layers, without the biases that a norm follows and with no biases for sums twice."""
    net = NeuralStatistician(input_shape=(1, 28, 28), output_size=5).net
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in net.named_children()}

    def convolutions(*channels, kernel=9):
        return sum(kernel * before * after + 2 * after for before, after in channels)

    def linear(before, after, norm=False):
        return (before + (2 if norm else 1)) * after

    encoder = [(1, 64), (64, 64), (64, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    assert counts["encoder"] == convolutions(*encoder)
    layer = linear(256, 256, norm=True)
    assert counts["statistic"] == linear(4096, 256, norm=True) + 2 * layer + linear(256, 1024) + 2
    latent = linear(512, 256) + 3 * layer + linear(256, 32) + 2
    assert counts["prior"] == latent and counts["posterior"] == latent + 4096 * 256
    plain = convolutions((256, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64))
    doubling = convolutions((256, 256), (128, 128), (64, 64), kernel=4)
    assert counts["decoder"] == linear(512 + 16, 256) + linear(256, 4096) + plain + doubling + linear(64, 1)
    assert [tuple(layer.padding) for layer in net.decoder.layers if isinstance(layer, nn.ZeroPad2d)] == [
        *[(1, 1, 1, 1)] * 2,
        (0, 0, 0, 0),  # 16 pixels become 14
        (0, 0, 0, 0),
    ]


def test_a_pose_is_a_flip_and_a_turn_of_the_whole_set():
    images = torch.rand(4, 1, 6, 8)
    upright, mirrored, quarter, unmoved = torch.tensor(
        [[0, 0.9, 0.9, 0], [0, 0.1, 0.9, 0], [0, 0.9, 0.9, 0.25], [0.9, 0.1, 0.1, 0.3]]
    )
    square = images[..., :6]
    assert_close(posed(images, upright.expand(4, -1), 0.5), images)
    assert_close(posed(images, mirrored.expand(4, -1), 0.5), images.flip(3))
    assert_close(posed(images, torch.stack([mirrored.roll(0)[[0, 2, 1, 3]]]).expand(4, -1), 0.5), images.flip(2))
    assert_close(posed(square, quarter.expand(4, -1), 0.5), square.rot90(1, (2, 3)))
    assert torch.equal(posed(images, unmoved.expand(4, -1), 0.5), images)


def test_the_images_of_a_set_have_one_pose():
    algorithm = statistician(posed_share=1.0)
    batch = random_batch(shots=2, queries=1)
    same = batch.support_x[:, :1].expand_as(batch.support_x)
    moved = algorithm._posed(same, batch.support_y, algorithm._noise(2, 6, 3, 0).pose)
    assert_close(moved[:, ::2], moved[:, 1::2])
    assert (moved[:, 0] - moved[:, 2]).abs().max() > 0.1 and (moved[0] - moved[1]).abs().max() > 0.1
    assert algorithm.eval()._posed(same, batch.support_y, algorithm._noise(2, 6, 3, 0).pose) is same


def test_the_outer_gradient_equals_finite_differences():
    assert stacked_difference_error(statistician(posed_share=0.5, num_latents=2), random_batch()) < 1e-6


def test_evaluation_does_not_depend_on_what_lies_beside():
    algorithm, batch = statistician().eval(), random_batch()
    params = params_of(algorithm)
    together = algorithm.predict_tasks(params, algorithm.adapt_tasks(params, batch.support_x, batch.support_y), batch.query_x)
    adapted = algorithm.adapt(params, batch.support_x[1], batch.support_y[1])
    assert_close(algorithm.predict(params, adapted, batch.query_x[1, :1]), together[1, :1])


def random_batch(shape=(1, 8, 8), tasks=2, ways=3, shots=3, queries=2) -> Episode:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.rand(tasks, ways * count, *shape, generator=generator) for count in (shots, queries)]
    labels = [torch.arange(ways).repeat_interleave(count).expand(tasks, -1) for count in (shots, queries)]
    return Episode(rows[0], labels[0], rows[1], labels[1])


def test_the_context_does_not_depend_on_the_order_of_the_set():
    algorithm, batch = statistician(), random_batch()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    context = algorithm.adapt_tasks(params_of(algorithm), batch.support_x, batch.support_y)
    shuffled = algorithm.adapt_tasks(params_of(algorithm), batch.support_x[:, order], batch.support_y[:, order])
    for one, other in zip(context, shuffled, strict=True):
        assert_close(one, other)
    moved = algorithm.adapt_tasks(params_of(algorithm), batch.support_x, batch.support_y.roll(1, 1))
    assert (moved - context).abs().max() > 0.01


def test_classification_by_the_least_divergence():
    algorithm, batch = statistician().eval(), random_batch()
    params = params_of(algorithm)
    classes = algorithm.adapt_tasks(params, batch.support_x, batch.support_y)
    logits = algorithm.predict_tasks(params, classes, batch.query_x)
    for task in range(2):
        for row in range(6):
            query = algorithm.adapt(params, batch.query_x[task, row : row + 1].repeat(3, 1, 1, 1), torch.arange(3))
            support = as_normal(classes[task])
            assert_close(logits[task, row], -kl_divergence(support, as_normal(query)).sum(-1))
    # A query that equals the only image of a class has its very context.
    alone = random_batch(shots=1, queries=1)
    assert_close(algorithm.losses(params, alone._replace(query_x=alone.support_x))[1]["accuracy"], torch.ones(2))


def test_the_loss_is_the_bound_written_out():
    """Against torch.distributions, image by image, with two stochastic layers."""
    algorithm, batch = statistician(num_latents=2, pixels="binary"), random_batch()
    params, net = params_of(algorithm), algorithm.net
    algorithm.eval()
    loss, metrics = algorithm.losses(params, batch)
    noise = algorithm._noise(2, 15, 3, 0)
    for task in range(2):
        total = 0.0
        for label in range(3):
            rows = [*range(3 * label, 3 * label + 3), *range(9 + 2 * label, 11 + 2 * label)]
            images = (torch.cat([batch.support_x[task], batch.query_x[task]])[rows] > 0.5).double()
            features = net.encoder(images)
            pooled = net.statistic.before(features).mean(0, keepdim=True)
            context = as_normal(net.statistic.after(pooled))
            total -= kl_divergence(context, Normal(0.0, 1.0)).sum()
            c = context.mean + context.stddev * noise.context[task, label]
            for position, row in enumerate(rows):
                drawn = []
                for layer in range(2):
                    above = (c, *drawn[-1:])
                    posterior = as_normal(net.posterior[layer](*above, features[position : position + 1]))
                    total -= kl_divergence(posterior, as_normal(net.prior[layer](*above))).sum()
                    drawn.append(posterior.mean + posterior.stddev * noise.latents[layer][task, row])
                total += Bernoulli(logits=net.decoder(c, torch.cat(drawn, -1))[0]).log_prob(images[position]).sum()
        assert_close(metrics["bound"][task], total / 15)
        assert_close(loss[task], -total / 15)
    algorithm.train()
    weighted, metrics = algorithm.losses(params, batch)
    divergence = metrics["context_divergence"] + metrics["latent_divergence"]
    assert_close(weighted, divergence / 2 - 2 * (metrics["bound"] + divergence))  # alpha is 1 at the start


def test_the_bound_is_below_the_likelihood():
    """Exact by quadrature over one context and one latent component; the bound from 4,000 draws of the noise."""
    shape, images = (1, 3, 3), 2
    algorithm = statistician(shape, context_size=1, latent_size=1).eval()
    params, net = params_of(algorithm), algorithm.net
    data = (torch.rand(images, *shape, generator=torch.Generator().manual_seed(3)) > 0.5).double()
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(60))
    weights = weights / weights.sum()

    def over_gaussian(own: Normal) -> Tensor:
        return own.mean[..., None] + own.stddev[..., None] * nodes

    def log_densities(c: Tensor, z: Tensor) -> Tensor:
        """log p(x | z, c) of each image, of shape (images, *z.shape)."""
        logits = net.decoder(c.expand_as(z).reshape(-1, 1), z.reshape(-1, 1)).flatten(1)
        return Bernoulli(logits=logits).log_prob(data.flatten(1)[:, None]).sum(-1).unflatten(1, z.shape)

    with torch.no_grad():
        c = nodes[:, None]
        prior = as_normal(net.prior[0](c))
        z = over_gaussian(Normal(prior.mean[:, 0], prior.stddev[:, 0]))  # of shape (contexts, latents)
        each = (log_densities(c, z) + weights.log()).logsumexp(-1)
        likelihood = (each.sum(0) + weights.log()).logsumexp(0) / images

        features = net.encoder(data)
        posterior = as_normal(net.statistic(features[None], torch.ones(1, images, 1)))
        expected = -kl_divergence(posterior, Normal(0.0, 1.0)).sum() / images
        c = over_gaussian(Normal(posterior.mean.flatten(), posterior.stddev.flatten())).T
        prior = as_normal(net.prior[0](c))
        for image in range(images):
            own = as_normal(net.posterior[0](c, features[image].expand(len(c), -1)))
            z = over_gaussian(Normal(own.mean[:, 0], own.stddev[:, 0]))
            inner = (log_densities(c, z)[image] * weights).sum(-1) - kl_divergence(own, prior)[:, 0]
            expected = expected + (inner * weights).sum() / images

        draws = 4000
        noise = Noise(
            torch.rand(draws, images), torch.rand(draws, 1, 4), torch.randn(draws, 1, 1), [torch.randn(draws, images, 1)]
        )
        many = [part.expand(draws, *part.shape) for part in (data, features, torch.ones(images, 1))]
        reconstruction, context, latents = algorithm.bound_terms(params, *many, noise)
        bound = reconstruction - context - latents
    assert abs(bound.mean() - expected) < 4 * bound.std() / draws**0.5
    assert expected < likelihood - 0.01


def test_at_least_one_image_of_a_set_stays():
    algorithm = statistician(set_dropout=0.9)
    membership = torch.eye(3).repeat_interleave(5, 0).expand(200, -1, -1)
    uniform = torch.rand(200, 15, generator=torch.Generator().manual_seed(0))
    kept = algorithm._kept(membership, uniform)
    assert ((kept == 0) | (kept == membership)).all() and (kept.sum(1) >= 1).all()
    assert 0.1 < kept.sum() / membership.sum() < 0.3  # a fifth of the images, of some sets more
    algorithm.eval()
    assert algorithm._kept(membership, uniform) is membership


@pytest.mark.slow
def test_learns_the_bound_and_draws_images_of_a_class():
    torch.set_default_dtype(torch.float32)
    data = Blots(ways=3, shots=2, queries=2, meta_batch_size=8, test_episodes=50)
    algorithm = method_for("NeuralStatistician", data, optimizer=partial(torch.optim.Adam, lr=0.003))
    run = trainer(100, gradient_clip_val=1.0)
    scores = []
    for train in (False, True):
        if train:
            run.fit(algorithm, data)
        run.test(algorithm, datamodule=data, verbose=False)
        scores.append({name: score["mean"][0] for name, score in algorithm.evaluation["scores"].items()})
    assert scores[1]["bound"] > scores[0]["bound"] + 5 and scores[1]["context_divergence"] > 1
    assert scores[1]["accuracy"] > max(0.9, scores[0]["accuracy"] + 0.1)
    episode, params = data.episode("test", 0), params_of(algorithm)
    adapted = algorithm.adapt(params, episode.support_x, episode.support_y)
    first, again = (algorithm.sample(params, adapted, 40, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again) and first.shape == (3, 40, 1, 16, 16) and first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize(("option", "value"), [("context_size", 0), ("set_dropout", 1.0), ("posed_share", -0.5)])
def test_a_number_that_cannot_be(option, value):
    with pytest.raises(InputError, match=f"--model.{option} is {value}; give at least"):
        statistician(**{option: value})


def test_vectors_are_refused():
    with pytest.raises(InputError, match=r"NeuralStatistician takes images, .* \(4,\)"):
        statistician((4,))


def test_chunks_do_not_change_the_noise():
    data = Blots(ways=3, shots=2, queries=2, meta_batch_size=4)
    data.setup()
    algorithm = algorithm_for(NeuralStatistician, data, **SIZES)
    batch = Episode(*(torch.stack(parts) for parts in zip(*(data.episode("train", index) for index in range(4)), strict=True)))
    gradients = []
    for size in (4, 1):
        algorithm.tasks_per_chunk = size
        gradients.append(algorithm.outer_gradient(params_of(algorithm), batch)[0])
    for name in gradients[0]:
        assert_close(gradients[0][name], gradients[1][name])


def test_a_resumed_run_goes_on_with_the_same_weights_and_noise(tmp_path):
    torch.set_default_dtype(torch.float32)
    ends = []
    for stops in ([4], [2, 4]):
        for stop in stops:
            data = Blots(ways=3, shots=2, queries=2, meta_batch_size=2)
            algorithm = method_for("NeuralStatistician", data, alpha_half_life=2)
            run = trainer(stop)
            run.fit(algorithm, data, ckpt_path=tmp_path / "last.ckpt" if stop > stops[0] else None, weights_only=False)
            run.save_checkpoint(tmp_path / "last.ckpt")
        ends.append(algorithm.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
