"""Neural processes against torch.distributions, their symmetries, and the bound of the latent ones."""

import json
import math

import pytest
import torch
from helpers.small import METHODS, algorithm_for, build, trainer
from torch.distributions import Independent, MixtureSameFamily, Normal, kl_divergence
from torch.testing import assert_close

from app.algorithms.model_based import gaussian
from app.algorithms.model_based.anp import ANP
from app.algorithms.model_based.attention import attend
from app.algorithms.model_based.canp import CANP
from app.algorithms.model_based.cnp import CNP
from app.algorithms.model_based.conv_cnp import ConvCNP
from app.algorithms.model_based.neural_process import NeuralProcess
from app.algorithms.model_based.np import NP
from app.algorithms.model_based.tnp import TNPD
from app.episode import Episode
from app.errors import InputError
from callbacks.test_report import TestReport
from datamodules.sinusoid import Sinusoid

ALL = sorted((cls for cls, _ in METHODS.values() if issubclass(cls, NeuralProcess)), key=lambda cls: cls.__name__)
LATENT = [ANP, NP]
SMALL = {"hidden_size": 12, "num_heads": 3, "latent_size": 2, "num_layers": 2, "feedforward_size": 8, "num_eval_samples": 4}
SMALL |= {"channels": 6, "num_blocks": 2, "kernel_size": 3, "points_per_unit": 5.0}

each = pytest.mark.parametrize("cls", ALL)
each_latent = pytest.mark.parametrize("cls", LATENT)
each_dims = pytest.mark.parametrize("dims", [1, 2])

pytestmark = pytest.mark.usefixtures("float64")


def small(cls: type[NeuralProcess], dims: int = 1, output_size: int = 1, **wanted) -> NeuralProcess:
    torch.manual_seed(0)
    linked = {"input_shape": (dims,), "output_size": output_size, "task_type": "regression"}
    algorithm = build(cls, SMALL | linked | wanted).eval()
    with torch.no_grad():  # narrow networks would hardly depend on anything
        for weight in algorithm.parameters():
            weight.mul_(2.0 if weight.ndim == 2 else 1.0)
    return algorithm


def tasks(num: int = 3, dims: int = 1, output_size: int = 1, context: int = 6, targets: int = 5) -> Episode:
    """Noisy random waves at inputs in -2 to 2."""
    generator = torch.Generator().manual_seed(1)
    x = 4 * torch.rand(num, context + targets, dims, generator=generator) - 2
    phase = torch.rand(num, 1, output_size, generator=generator)
    y = torch.sin(2 * x.sum(-1, keepdim=True) + 6 * phase) + 0.1 * torch.randn(*x.shape[:2], output_size, generator=generator)
    return Episode(x[:, :context], y[:, :context], x[:, context:], y[:, context:])


def predict(algorithm: NeuralProcess, xc, yc, xt, first_episode=0) -> torch.Tensor:
    params = dict(algorithm.named_parameters())
    with torch.no_grad():
        return algorithm.predict_tasks(params, algorithm.adapt_tasks(params, xc, yc, first_episode), xt)


def normal(gaussians: torch.Tensor) -> Independent:
    mean, std = gaussians.chunk(2, -1)
    return Independent(Normal(mean, std), 1)


# Formulas


def random_gaussians(*shape: int) -> torch.Tensor:
    mean, spread = torch.randn(*shape), torch.randn(*shape)
    return torch.cat([mean, spread.exp()], -1)


def test_gaussian_formulas_equal_torch_distributions():
    torch.manual_seed(0)
    q, p, y = random_gaussians(4, 5, 3), random_gaussians(4, 5, 3), torch.randn(4, 5, 3)
    assert_close(gaussian.log_density(q, y), normal(q).log_prob(y))
    assert_close(gaussian.kl_divergence(q, p), kl_divergence(normal(q), normal(p)))
    mean, std = q.chunk(2, -1)
    parts = torch.distributions.Categorical(torch.ones(4, 3, 5))
    expected = MixtureSameFamily(parts, Normal(mean.movedim(1, -1), std.movedim(1, -1)))
    assert_close(gaussian.mixture(q, 1), torch.cat([expected.mean, expected.variance.sqrt()], -1))
    assert_close(gaussian.log_mean_exp(y, 1), y.exp().mean(1).log())
    draws = gaussian.sample(q[0, 0], torch.randn(200_000, 3))
    assert_close(torch.cat([draws.mean(0), draws.std(0)]), q[0, 0], rtol=0.02, atol=0.02)


def test_attention_equals_pytorch():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    heads = [x.view(2, -1, 3, 4).transpose(1, 2) for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads, scale=0.3).transpose(1, 2).reshape(2, 5, 12)
    assert_close(attend(q, k, v, 3, 0.3), expected)


@pytest.mark.parametrize("cls", sorted({*ALL} - {*LATENT}, key=lambda cls: cls.__name__))
@each_dims
def test_loss_and_scores_of_the_conditional_ones(cls, dims):
    algorithm, batch = small(cls, dims, output_size=2), tasks(dims=dims, output_size=2)
    xc, yc, xt, yt = batch
    losses, metrics = algorithm.losses(dict(algorithm.named_parameters()), batch)
    x, y = (torch.cat([xc, xt], 1), torch.cat([yc, yt], 1)) if cls.trains_on_context else (xt, yt)
    assert_close(losses, -normal(predict(algorithm, xc, yc, x)).log_prob(y).mean(1))
    outputs = predict(algorithm, xc, yc, xt)
    log_likelihood = normal(outputs).log_prob(yt).mean(1)
    assert_close(metrics["log_likelihood"], log_likelihood)
    scores = algorithm.evaluate_tasks(dict(algorithm.named_parameters()), batch, "test")[0][0]
    expected = {"log_likelihood": log_likelihood, "mse": (outputs[..., :2] - yt).square().mean((1, 2)), "loss": losses}
    half_width = 1.96 * outputs[..., 2:]
    expected["coverage"] = ((outputs[..., :2] - yt).abs() <= half_width).double().mean((1, 2))
    expected["width"] = 2 * half_width.mean((1, 2))
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(scores[name], value)


def test_a_test_says_how_many_validation_tasks_chose_its_intervals(tmp_path, capsys):
    data = Sinusoid(queries=5, meta_batch_size=4, val_episodes=8, test_episodes=8)
    algorithm = algorithm_for(CNP, data)
    run = trainer(2, val_check_interval=2, check_val_every_n_epoch=None, limit_val_batches=1.0)
    run.fit(algorithm, datamodule=data)
    run.save_checkpoint(tmp_path / "one.ckpt")
    other = algorithm_for(CNP, data)
    other.on_load_checkpoint(torch.load(tmp_path / "one.ckpt", weights_only=True))
    assert other.validated_groups == 8 and other.temperature == algorithm.temperature
    trainer(callbacks=[TestReport()], default_root_dir=tmp_path).test(other, datamodule=data, verbose=False)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["intervals"] == {"factor": other.temperature, "validation_tasks": 8}
    assert "by 8 validation tasks: too few to promise 95 % of one more task, which takes 19" in capsys.readouterr().out
    other.validated_groups = 19
    trainer(callbacks=[TestReport()], default_root_dir=tmp_path).test(other, datamodule=data, verbose=False)
    told = capsys.readouterr().out
    assert "by 19 validation tasks" in told and "too few" not in told


@each_latent
@pytest.mark.parametrize("likelihood", ["per_point", "joint"])
@pytest.mark.parametrize("num_train_samples", [1, 3])
def test_bound_and_scores_of_the_latent_ones(cls, likelihood, num_train_samples):
    algorithm = small(cls, 2, 2, likelihood=likelihood, num_train_samples=num_train_samples)
    batch = tasks(dims=2, output_size=2)
    xc, yc, xt, yt = batch
    x, y = torch.cat([xc, xt], 1), torch.cat([yc, yt], 1)
    params = dict(algorithm.named_parameters())
    prior, posterior = normal(algorithm.latent(params, xc, yc)), normal(algorithm.latent(params, x, y))
    z = algorithm.draw(algorithm.latent(params, x, y), num_train_samples, 0)
    outputs = algorithm.decode(params, algorithm.represent(params, xc, yc), z, x)
    given_z = [normal(outputs[:, sample]).log_prob(y).sum(1) for sample in range(num_train_samples)]
    if num_train_samples == 1:
        bound = given_z[0] - kl_divergence(posterior, prior)
    else:
        draws = z.unbind(1)
        weights = [(g + prior.log_prob(d) - posterior.log_prob(d)).exp() for g, d in zip(given_z, draws, strict=True)]
        bound = (sum(weights) / num_train_samples).log()
    losses, metrics = algorithm.losses(params, batch)
    assert_close(losses, -bound / y.shape[1])
    assert_close(metrics["kl"], kl_divergence(posterior, prior))
    representation, z = algorithm.adapt_tasks(params, xc, yc)
    outputs = algorithm.decode(params, representation, z, xt)
    assert outputs.shape == (3, 4, 5, 4)
    probabilities = torch.stack([normal(outputs[:, sample]).log_prob(yt) for sample in range(4)], 1).exp()
    expected = {"joint": probabilities.prod(2).mean(1).log() / yt.shape[1], "per_point": probabilities.mean(1).log().mean(1)}
    scores = algorithm.evaluate_tasks(params, batch, "test")[0][0]
    assert_close(scores["log_likelihood"], expected[likelihood])
    assert_close(scores["loss"], losses)
    assert algorithm.describe_algorithm()["likelihood"] == likelihood


@each_latent
@pytest.mark.parametrize("num_train_samples", [1, 4])
def test_the_bound_is_below_the_multi_sample_likelihood(cls, num_train_samples):
    """Of all points given the context, averaged over much noise."""
    algorithm = small(cls, num_train_samples=num_train_samples, num_eval_samples=4000, likelihood="joint")
    params, one = dict(algorithm.named_parameters()), tasks(1)
    xc, yc, xt, yt = one
    everything = Episode(xc, yc, torch.cat([xc, xt], 1), torch.cat([yc, yt], 1))
    with torch.no_grad():
        bounds = -algorithm.losses(params, Episode(*(tensor.expand(500, -1, -1) for tensor in one)))[0]
        likelihood = algorithm.evaluate_tasks(params, everything, "test")[0][0]["log_likelihood"].item()
    mean, error = bounds.mean().item(), bounds.std().item() / 500**0.5
    assert error < 0.25 * (likelihood - mean)  # a difference that is no noise
    assert likelihood - 1 < mean < likelihood


# Symmetries


@each
@each_dims
def test_order_of_context_and_targets(cls, dims):
    algorithm, (xc, yc, xt, _) = small(cls, dims), tasks(dims=dims)
    expected = predict(algorithm, xc, yc, xt)
    assert expected.shape == (3, 5, 2)
    order, other = torch.randperm(6), torch.randperm(5)
    assert_close(predict(algorithm, xc[:, order], yc[:, order], xt), expected)
    assert_close(predict(algorithm, xc, yc, xt[:, other]), expected[:, other])
    assert not torch.allclose(predict(algorithm, xc, yc.flip(1), xt), expected)  # but whose value is whose matters


@each
def test_targets_do_not_influence_each_other_and_the_context_does(cls):
    algorithm, (xc, yc, xt, _) = small(cls), tasks()
    expected = predict(algorithm, xc, yc, xt)
    assert_close(predict(algorithm, xc, yc, xt[:, 2:3]), expected[:, 2:3])
    moved = torch.cat([xt[:, :1], xt[:, 1:] + 0.3], 1)
    assert_close(predict(algorithm, xc, yc, moved)[:, :1], expected[:, :1])
    assert (predict(algorithm, xc, yc + 0.5, xt) - expected).abs().max() > 1e-4


@each
def test_tasks_do_not_influence_each_other(cls):
    algorithm, (xc, yc, xt, _) = small(cls), tasks()
    together = predict(algorithm, xc, yc, xt)
    assert_close(predict(algorithm, xc[1:2], yc[1:2], xt[1:2], first_episode=1), together[1:2])


@each_dims
def test_conv_cnp_is_equivariant_to_shifts_by_whole_cells(dims):
    """Far enough from the border of the grid, whose zeros the network sees."""
    reach, cells = 2 * 2 * 1 + 20, 7  # of the network, and of the Gaussian weights: exp(-0.5 * (20 / 2)^2) = 2e-22
    radius = 2 + (reach + cells) / 5.0
    algorithm = small(ConvCNP, dims, grid_range=(-radius, radius))
    xc, yc, xt, _ = tasks(dims=dims)
    expected = predict(algorithm, xc, yc, xt)
    for shift in (cells / 5.0, -cells / 5.0):
        assert_close(predict(algorithm, xc + shift, yc, xt + shift), expected, rtol=0, atol=1e-9)
    half = 0.5 / 5.0
    assert (predict(algorithm, xc + half, yc, xt + half) - expected).abs().max() > 1e-7  # half a cell is something else


def test_conv_cnp_forgets_the_context_far_away():
    algorithm = small(ConvCNP, grid_range=(-10.0, 10.0))
    xc, yc, _, _ = tasks()
    far = torch.full((3, 1, 1), 9.0)
    assert_close(predict(algorithm, xc, yc, far), predict(algorithm, xc, yc + 1, far))


def test_the_context_of_tnp_d_does_not_depend_on_the_targets():
    """Both streams equal one transformer over all tokens with the mask of the authors' code."""
    algorithm, (xc, yc, xt, _) = small(TNPD), tasks()
    net, rows = algorithm.net, xc.shape[1]
    tokens = net["embedder"](torch.cat([torch.cat([xc, xt], 1), torch.cat([yc, torch.zeros_like(xt)], 1)], -1))
    for layer in net["layers"]:
        torch_layer = torch.nn.TransformerEncoderLayer(12, 3, 8, 0.0, batch_first=True).eval()
        attention = torch_layer.self_attn
        parts = (layer.queries, layer.keys, layer.values)
        with torch.no_grad():
            attention.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            attention.in_proj_bias.copy_(torch.cat([torch.zeros(12) if part.bias is None else part.bias for part in parts]))
        attention.out_proj.load_state_dict(layer.attended.state_dict())
        torch_layer.linear1.load_state_dict(layer.feedforward[0].state_dict())
        torch_layer.linear2.load_state_dict(layer.feedforward[2].state_dict())
        torch_layer.norm1.load_state_dict(layer.norm.state_dict())
        torch_layer.norm2.load_state_dict(layer.out_norm.state_dict())
        mask = torch.zeros(tokens.shape[1], tokens.shape[1]).index_fill(1, torch.arange(rows, tokens.shape[1]), -math.inf)
        tokens = torch_layer(tokens, src_mask=mask)
    mean, spread = net["predictor"](tokens[:, rows:]).chunk(2, -1)
    assert_close(predict(algorithm, xc, yc, xt), torch.cat([mean, spread.exp() + 1e-4], -1))


# Runs


@each
@pytest.mark.parametrize("tasks_per_chunk", [1, 3])
def test_chunks_change_nothing(cls, tasks_per_chunk):
    """Neither gradients nor scores, although they depend on noise."""
    whole, parts = (small(cls, tasks_per_chunk=size) for size in (4, tasks_per_chunk))
    batch = tasks(4)
    results = [algorithm.outer_gradient(dict(algorithm.named_parameters()), batch) for algorithm in (whole, parts)]
    for expected, actual in zip(results[0], results[1], strict=True):
        for name, value in expected.items():
            assert_close(actual[name], value, rtol=1e-9, atol=1e-12)


@each_latent
def test_evaluation_of_latent_ones_does_not_depend_on_chunks(cls):
    data = Sinusoid(shots=5, queries=5, meta_batch_size=4, test_episodes=7)
    results = []
    for size in (1, 3, 4):
        algorithm = algorithm_for(cls, data, tasks_per_chunk=size)
        trainer().test(algorithm, datamodule=data, verbose=False)
        results.append(algorithm.evaluation["scores"])
    for name, score in results[0].items():
        for other in results[1:]:
            assert other[name]["mean"] == pytest.approx(score["mean"], rel=1e-10)


@each_latent
def test_each_task_has_its_own_noise(cls):
    algorithm, (xc, yc, *_) = small(cls), tasks(1)
    params = dict(algorithm.named_parameters())
    _, z = algorithm.adapt_tasks(params, xc.expand(3, -1, -1), yc.expand(3, -1, -1))
    assert len({tuple(sample) for sample in z.flatten(0, 1).tolist()}) == 3 * 4


@each
def test_gradient_equals_finite_differences(cls):
    algorithm, batch = small(cls), tasks(2)
    params = dict(algorithm.named_parameters())
    gradient, _ = algorithm.outer_gradient(params, batch)
    errors = []
    for _ in range(5):
        direction = {name: torch.randn_like(value) for name, value in params.items()}
        ahead, behind = (
            algorithm.losses({name: value + sign * 1e-6 * direction[name] for name, value in params.items()}, batch)[0].mean()
            for sign in (1, -1)
        )
        slope = sum((gradient[name] * direction[name]).sum() for name in params)
        errors.append(((ahead - behind) / 2e-6 / slope - 1).abs())
    assert torch.stack(errors).median() < 1e-6


@each
def test_outputs_are_wide_under_bfloat16(cls):
    torch.set_default_dtype(torch.float32)
    algorithm = small(cls)
    batch = algorithm.as_dtype(tasks())
    expected = predict(algorithm, *batch[:3])
    with torch.autocast("cpu", torch.bfloat16):
        outputs = predict(algorithm, *batch[:3])
        losses, metrics = algorithm.losses(dict(algorithm.named_parameters()), batch)
    assert {tensor.dtype for tensor in (outputs, losses, *metrics.values())} == {torch.float32}
    assert_close(outputs, expected, rtol=0.1, atol=0.1)


@each
def test_prediction_is_pure_in_the_parameters(cls):
    algorithm, (xc, yc, xt, _) = small(cls), tasks()
    other = {name: value + 0.1 for name, value in algorithm.named_parameters()}
    with torch.no_grad():
        pure = algorithm.predict_tasks(other, algorithm.adapt_tasks(other, xc, yc), xt)
        for name, value in algorithm.named_parameters():
            value.copy_(other[name])
    assert_close(predict(algorithm, xc, yc, xt), pure)


# Wrong options

WRONG = {
    "no units": (CNP, {"hidden_size": 0}, "--model.hidden_size is 0; give at least 1"),
    "heads": (CANP, {"hidden_size": 10, "num_heads": 4}, "--model.num_heads 4 does not divide --model.hidden_size 10"),
    "heads of a transformer": (TNPD, {"num_heads": 5}, "--model.num_heads 5 does not divide --model.hidden_size 12"),
    "no layers": (TNPD, {"num_layers": 0}, "--model.num_layers is 0; give at least 1"),
    "no samples": (NP, {"num_eval_samples": 0}, "--model.num_eval_samples is 0; give at least 1"),
    "no grid": (ConvCNP, {"grid_range": (1.0, 1.0)}, "--model.grid_range is from 1.0 to 1.0; give two finite numbers"),
    "no cells": (ConvCNP, {"points_per_unit": 0.0}, "--model.points_per_unit is 0.0; give"),
    "even kernel": (ConvCNP, {"kernel_size": 4}, "--model.kernel_size is 4; give an odd number"),
    "many dimensions": (ConvCNP, {"dims": 3}, "1 or 2 dimensions, the inputs of --data have 3; choose CANP"),
}


@pytest.mark.parametrize(("cls", "options", "message"), WRONG.values(), ids=WRONG)
def test_an_option_that_cannot_be(cls, options, message):
    with pytest.raises(InputError, match=message):
        small(cls, **options)


@each
def test_images_are_refused(cls):
    with pytest.raises(InputError, match=f"--model {cls.__name__} takes vectors, .* have shape \\(1, 8, 8\\)"):
        small(cls, input_shape=(1, 8, 8))


def test_a_grid_that_does_not_hold_the_data():
    data = Sinusoid()
    algorithm_for(ConvCNP, data, grid_range=(-5.0, 5.0)).check_data(data)
    with pytest.raises(InputError, match=r"--model.grid_range is from -2.0 to 2.0, the inputs of --data go from -5 to "):
        algorithm_for(ConvCNP, data, grid_range=(-2.0, 2.0)).check_data(data)
