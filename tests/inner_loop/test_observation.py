"""What is looked at inside a task."""

import pytest
import torch
from helpers.small import small_run, trainer
from torch.func import grad, vmap

from app.inner_loop.observation import observe, observing
from callbacks.step_sizes import StepSizes


def test_only_what_is_wanted_is_kept_and_only_under_the_vmap_over_tasks():
    def task(x: torch.Tensor) -> torch.Tensor:
        observe("square", lambda: x.square())
        observe("constant", lambda: torch.ones(2))
        observe("other", lambda: pytest.fail("nobody wants it"))
        return grad(lambda y: (observe("square", lambda: y), y.square())[1])(x)

    with observing("square", "constant") as observed:
        vmap(task)(torch.arange(3.0))
        task(torch.tensor(5.0))
    assert [value.tolist() for value in observed["square"]] == [[0, 1, 4]]
    assert [value.tolist() for value in observed["constant"]] == [[[1, 1]] * 3]
    vmap(task)(torch.arange(3.0))
    assert len(observed["square"]) == 1


@pytest.mark.parametrize("method", ["MAML", "MetaSGD", "Reptile"])
@pytest.mark.parametrize("stacking", ["off", None])
def test_the_inner_gradient_norm_is_that_of_the_inner_gradients(method, stacking):
    model, data = small_run(method, tasks_per_chunk=3, first_order=False, stacking=stacking)
    if method == "Reptile":
        model.inner_optimizer = "sgd"
    logged = {}
    model.log_dict = lambda values, **kwargs: logged.update(values)
    batch = [data.episode("train", index) for index in range(4)]
    start = {name: weight.detach().clone() for name, weight in model.net.named_parameters()}
    sizes = [size.detach().clone() for size in model.learned_step_sizes().values()] or [0.3] * len(start)
    trainer(max_steps=1, log_every_n_steps=1).fit(model, data)
    norms = []
    for episode in batch:
        weights = start
        for _ in range(model.inner_steps):
            leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
            loss = model.inner_loss(torch.func.functional_call(model.net, leaves, (episode.support_x,)), episode.support_y)
            gradient = torch.autograd.grad(loss, list(leaves.values()))
            norms.append(torch.cat([part.flatten() for part in gradient]).norm())
            moved = zip(leaves.items(), sizes, gradient, strict=True)
            weights = {name: (weight - size * part).detach() for (name, weight), size, part in moved}
    assert float(logged["train/inner_gradient_norm"]) == pytest.approx(float(torch.stack(norms).mean()), rel=1e-4)


def test_learned_step_sizes_are_logged_by_layer():
    model, data = small_run("MetaSGD")
    fit = trainer(max_steps=1, log_every_n_steps=1, callbacks=(StepSizes(),))
    fit.fit(model, data)
    names = {name.removeprefix("train/step_size/") for name in fit.callback_metrics if name.startswith("train/step_size/")}
    assert names == {name.rpartition(".")[0] for name, _ in model.net.named_parameters()}
    sizes = {name: size.detach() for name, size in model.learned_step_sizes().items()}
    head = torch.cat([sizes[name].flatten() for name in sizes if name.startswith("head.")])
    assert float(fit.callback_metrics["train/step_size/head"]) == pytest.approx(float(head.mean()), rel=1e-6)
    assert float(fit.callback_metrics["train/step_size_std/head"]) == pytest.approx(float(head.std(correction=0)), rel=1e-6)
