"""The heads that are the optimum of a convex problem: ridge regression and the support vector machine."""

import numpy as np
import pytest
import torch
from helpers.gradients import stacked_difference_error
from helpers.small import NETWORKS, WAYS, random_tasks
from scipy.optimize import minimize
from torch import Tensor
from torch.testing import assert_close

from app.algorithms.metric_based.logistic_regression import logistic_regression
from app.algorithms.metric_based.meta_opt_net import MetaOptNet
from app.algorithms.metric_based.r2d2 import R2D2
from app.algorithms.metric_based.ridge_regression import ridge_regression
from app.algorithms.metric_based.svm import svm_dual
from app.errors import InputError

PENALTY = 0.1


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def method(cls: type, **options):
    return cls(input_shape=(1, 16, 16), output_size=WAYS, **options)


def numpy_ridge(rows: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    return np.linalg.solve(rows.T @ rows + penalty * np.eye(rows.shape[1]), rows.T @ targets)


@pytest.mark.parametrize("num_features", [3, 6, 20])
def test_ridge_regression_equals_numpy(num_features):
    """Of 6 rows: by the features, by either, by the rows."""
    rows, targets = torch.randn(4, 6, num_features), torch.randn(4, 6, 2)
    expected = [numpy_ridge(x.numpy(), y.numpy(), 0.7) for x, y in zip(rows, targets, strict=True)]
    assert_close(ridge_regression(rows, targets, 0.7), torch.from_numpy(np.stack(expected)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("num_features", [3, 20])
def test_gradient_of_the_ridge_regression(num_features):
    rows, penalty = torch.randn(2, 6, num_features).requires_grad_(), torch.tensor(0.7).requires_grad_()
    targets = torch.randn(2, 6, 2)
    assert torch.autograd.gradcheck(lambda rows, penalty: ridge_regression(rows, targets, penalty), (rows, penalty))


@pytest.mark.parametrize("learns_penalty", [False, True])
def test_r2d2_is_ridge_regression_of_one_hot_labels_with_a_bias(learns_penalty):
    """As in the authors' program: features, with a 1 beside them, and labels over the root of the number of rows."""
    algorithm = method(R2D2, penalty=0.3, learns_penalty=learns_penalty, initial_scale=5.0)
    params = dict(algorithm.named_parameters())
    assert ("log_penalty" in params) == learns_penalty
    labels, support, queries = torch.tensor([[0, 0, 1, 2, 1, 2]] * 2), torch.randn(2, 6, 20), torch.randn(2, 4, 20)
    head = algorithm.fit_head(params, support, labels)
    for task in range(2):
        rows = np.concatenate([support[task].numpy(), np.ones((6, 1))], 1) / np.sqrt(6)
        weights = numpy_ridge(rows, np.eye(WAYS)[labels[task]] / np.sqrt(6), 0.3)
        expected = torch.from_numpy(5 * (queries[task].numpy() @ weights[:-1] + weights[-1]))
        assert_close(algorithm.head_outputs(params, head, queries)[task], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("cls", [R2D2, MetaOptNet])
def test_outer_gradient_equals_finite_differences(cls):
    algorithm, batch = method(cls, backbone=NETWORKS["Conv4_max_pool"]), random_tasks()
    assert stacked_difference_error(algorithm, batch) < 1e-6


def labels_of(rows: int, classes: int) -> Tensor:
    return torch.eye(classes)[torch.arange(rows) % classes]


def kernels(tasks: int, rows: int, features: int, scale: float = 1.0) -> Tensor:
    x = scale * torch.randn(tasks, rows, features).relu()
    return x @ x.mT + torch.eye(rows)


def dual_objective(kernel: np.ndarray, labels: np.ndarray, a: np.ndarray) -> float:
    return 0.5 * np.trace(a.T @ kernel @ a) - (a * labels).sum()


def reference_dual(kernel: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """By sequential quadratic programming."""
    shape = labels.shape
    result = minimize(
        lambda a: dual_objective(kernel, labels, a.reshape(shape)),
        np.zeros(labels.size),
        jac=lambda a: (kernel @ a.reshape(shape) - labels).ravel(),
        method="SLSQP",
        bounds=[(None, bound) for bound in PENALTY * labels.ravel()],
        constraints={
            "type": "eq",
            "fun": lambda a: a.reshape(shape).sum(1),
            "jac": lambda a: np.kron(np.eye(shape[0]), np.ones(shape[1])),
        },
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return result.x.reshape(shape)


@pytest.mark.parametrize(("rows", "classes", "features"), [(3, 3, 20), (10, 2, 4), (12, 4, 20), (15, 3, 2)])
def test_svm_dual_equals_scipy(rows, classes, features):
    kernel, labels = kernels(2, rows, features), labels_of(rows, classes)
    a = svm_dual(kernel, labels.expand(2, -1, -1), PENALTY).numpy()
    for task in range(2):
        problem = kernel[task].numpy(), labels.numpy()
        expected = reference_dual(*problem)
        assert dual_objective(*problem, a[task]) == pytest.approx(dual_objective(*problem, expected), rel=1e-9)
        assert_close(a[task], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 300.0])
@pytest.mark.parametrize(("rows", "classes"), [(5, 5), (25, 5), (40, 20)])
def test_svm_dual_is_optimal(rows, classes, scale):
    """Karush, Kuhn and Tucker: a bound's multiplier is not negative, and zero where the bound does not hold."""
    kernel, labels = kernels(3, rows, 64, scale), labels_of(rows, classes)
    a = svm_dual(kernel, labels.expand(3, -1, -1), PENALTY)
    slack = PENALTY * labels - a
    assert_close(a.sum(-1), torch.zeros(3, rows), rtol=0, atol=1e-12)
    assert slack.min() > -1e-12
    gradient = labels - kernel @ a  # multiplier of the bound + multiplier of the row's equation
    multipliers = gradient - gradient.amin(-1, keepdim=True)
    assert (multipliers * slack).max() < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "classes", "features"), [(4, 4, 20), (12, 3, 5), (10, 5, 20)])
def test_gradient_of_the_svm_dual(rows, classes, features):
    support, labels = torch.randn(rows, features).requires_grad_(), labels_of(rows, classes)
    bounds_hold = svm_dual(support.detach() @ support.detach().mT + torch.eye(rows), labels, PENALTY) > PENALTY * labels - 1e-6
    assert bounds_hold.any() and not bounds_hold.all()
    assert torch.autograd.gradcheck(
        lambda x: svm_dual(x @ x.mT + torch.eye(rows), labels, PENALTY), support, eps=1e-6, atol=1e-7, rtol=1e-5, fast_mode=True
    )


def test_many_machines_equal_a_loop():
    kernel, labels = kernels(4, 10, 6), labels_of(10, 5).expand(4, -1, -1)
    kernel[1] *= 100
    alone = torch.stack([svm_dual(kernel[task], labels[task], PENALTY) for task in range(4)])
    assert_close(svm_dual(kernel, labels, PENALTY), alone, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("head", ["svm", "ridge"])
@pytest.mark.parametrize("features", [torch.ones(2, 6, 20), torch.zeros(2, 6, 20), 1e4 * torch.ones(2, 6, 20)])
def test_features_that_are_all_equal(head, features):
    algorithm, labels = method(MetaOptNet, head=head), torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)
    params, features = dict(algorithm.named_parameters()), features.clone().requires_grad_()
    outputs = algorithm.head_outputs(params, algorithm.fit_head(params, features, labels), features)
    assert_close(outputs, outputs[..., :1].expand_as(outputs), rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(outputs.square().sum() + outputs[..., 0].sum(), features)
    assert gradient.isfinite().all()


def test_weights_of_the_svm_are_the_support_vectors_times_the_dual():
    algorithm, labels = method(MetaOptNet), torch.tensor([[0, 0, 1, 2, 1, 2]])
    params, support, queries = dict(algorithm.named_parameters()), torch.randn(1, 6, 20), torch.randn(1, 4, 20)
    params["scale"] = torch.tensor(1.5)
    dual = reference_dual((support @ support.mT + torch.eye(6))[0].numpy(), np.eye(WAYS)[labels[0]])
    head = algorithm.fit_head(params, support, labels)
    assert_close(head[0], support[0].mT @ torch.from_numpy(dual), rtol=0, atol=1e-5)
    expected = 1.5 * (queries @ support.mT)[0] @ torch.from_numpy(dual)
    assert_close(algorithm.head_outputs(params, head, queries)[0], expected, rtol=0, atol=1e-4)


def test_weights_of_the_ridge_head():
    algorithm, labels, support = method(MetaOptNet, head="ridge"), torch.tensor([[0, 0, 1, 2, 1, 2]]), torch.randn(1, 6, 20)
    expected = numpy_ridge(support[0].numpy(), np.eye(WAYS)[labels[0]], 50.0)
    assert_close(algorithm.fit_head({}, support, labels)[0], torch.from_numpy(expected), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("cls", "option"),
    [(R2D2, "penalty"), (R2D2, "initial_scale"), (MetaOptNet, "svm_penalty"), (MetaOptNet, "ridge_penalty")],
)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_number_that_cannot_be(cls, option, value):
    with pytest.raises(InputError, match=f"--model.{option} is {value}; give a number above 0"):
        method(cls, **{option: value})


def test_training_labels_are_smoothed():
    """The label's own class keeps all but the share, which the others divide (the authors' program)."""
    algorithm, labels, outputs = method(MetaOptNet, label_smoothing=0.1), torch.tensor([[2, 0, 1]]), torch.randn(1, 3, WAYS)
    targets = torch.where(torch.eye(WAYS)[labels] > 0, 0.9, 0.1 / (WAYS - 1))
    expected = -(targets * outputs.log_softmax(-1)).sum(-1).mean()
    assert_close(torch.func.vmap(algorithm.outer_loss)(outputs, labels), expected[None])
    plain = method(MetaOptNet).outer_loss(outputs[0], labels[0])
    assert_close(algorithm.eval().outer_loss(outputs[0], labels[0]), plain)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_of_the_label_that_cannot_be(share):
    with pytest.raises(InputError, match=f"--model.label_smoothing is {share}; give a number from 0 to below 1"):
        method(MetaOptNet, label_smoothing=share)


def test_squared_errors_have_no_smoothed_labels():
    with pytest.raises(InputError, match=r"--model.label_smoothing is for --model.outer_loss cross_entropy"):
        method(MetaOptNet, label_smoothing=0.1, outer_loss="mse")


@pytest.mark.parametrize(("num_features", "classes", "scale"), [(3, 3, 1.0), (20, 5, 1.0), (20, 2, 50.0)])
def test_logistic_regression_is_at_its_optimum(num_features, classes, scale):
    rows, targets = scale * torch.randn(2, 10, num_features), torch.eye(classes)[torch.arange(10) % classes].expand(2, -1, -1)
    weights, biases = logistic_regression(rows, targets, 0.5)
    slope = (rows @ weights + biases[:, None]).softmax(-1) - targets
    assert_close(rows.mT @ slope + 0.5 * weights, torch.zeros_like(weights), rtol=0, atol=1e-6 * scale)
    assert_close(slope.sum(1), torch.zeros_like(biases), rtol=0, atol=1e-7)
    assert_close(biases.sum(-1), torch.zeros(2), rtol=0, atol=1e-9)
    assert weights.abs().max() > 1e-2


def test_logistic_regression_equals_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    rows, labels = torch.randn(12, 6), torch.arange(12) % 3
    theirs = linear_model.LogisticRegression(C=2.0, tol=1e-12, max_iter=10_000).fit(rows.numpy(), labels.numpy())
    weights, biases = logistic_regression(rows, torch.eye(3)[labels], 0.5)
    assert_close(weights.mT, torch.from_numpy(theirs.coef_), rtol=1e-4, atol=1e-5)
    assert_close(biases, torch.from_numpy(theirs.intercept_ - theirs.intercept_.mean()), rtol=1e-4, atol=1e-5)
