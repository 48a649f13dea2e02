"""P>M>F: fine-tuning to a test task."""

from copy import deepcopy
from functools import partial

import torch
import torch.nn.functional as F
from helpers.small import WAYS, Blots, algorithm_for, flat, random_tasks, take, trainer
from torch.testing import assert_close

from app.algorithms.metric_based.pmf import PMF, RATES
from app.algorithms.metric_based.protonet import class_means
from app.algorithms.metric_based.pseudo_queries import changed
from app.backbones import Conv4


def build(**options) -> PMF:
    torch.manual_seed(0)
    backbone = partial(Conv4, width=8)
    return PMF(input_shape=(1, 16, 16), output_size=WAYS, backbone=backbone, eval_finetune_steps=3, **options).eval()


def test_fine_tuning_is_adam_on_changed_support_pictures(float64):
    """As the authors' program does it with the module itself."""
    algorithm, batch = build(eval_finetune_lr=0.01), random_tasks()
    params = dict(algorithm.named_parameters())
    before = flat(params)
    outputs = algorithm.query_outputs(params, batch, 4)
    assert torch.equal(flat(params), before)  # the network itself stays
    for task in range(2):
        net, (support_x, support_y, query_x, _) = deepcopy(algorithm.net), take(batch, task)
        optimizer, members = torch.optim.Adam(net.parameters(), lr=0.01), F.one_hot(support_y, WAYS).to(support_x)

        def logits(net, pictures, support_x=support_x, members=members):
            means = F.normalize(class_means(net(support_x)[None], members[None])[0], dim=-1)
            return 10.0 * F.normalize(net(pictures), dim=-1) @ means.T

        noise = next(algorithm.generators(1, 4 + task))
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(logits(net, changed(support_x, noise, 0.9)), support_y).backward()
            optimizer.step()
        assert_close(outputs[task], logits(net, query_x), rtol=1e-6, atol=1e-8)
    support_x, support_y, query_x, _ = take(batch, 0)
    alone = algorithm.predict(params, algorithm.adapt(params, support_x, support_y), query_x)
    assert_close(alone, algorithm.query_outputs(params, batch)[0], rtol=1e-6, atol=1e-8)
    transductive = build(eval_finetune_lr=0.01, transductive=True)
    assert not torch.allclose(transductive.query_outputs(params, batch), outputs)


def test_a_rate_of_zero_is_protonet(float64):
    batch, plain = random_tasks(), build(eval_finetune_lr=0.0)
    params = dict(plain.named_parameters())
    assert not plain.fine_tunes and plain.sums_are_enough
    assert not build(eval_finetune_lr=0.1).sums_are_enough
    outputs = plain.query_outputs(params, batch)
    assert not torch.allclose(outputs, build(eval_finetune_lr=0.1).query_outputs(params, batch))


def test_a_test_chooses_the_rate_on_validation_tasks():
    data = Blots(ways=3, shots=2, queries=2, meta_batch_size=2, val_episodes=3, test_episodes=4)
    algorithm = algorithm_for(PMF, data, backbone=partial(Conv4, width=4), eval_finetune_steps=2)
    run = trainer(2)
    run.fit(algorithm, data)
    assert algorithm.finetune_lr == 0.0  # no validation of a fit fine-tunes
    asked = []
    algorithm.query_outputs = lambda params, batch, number=0, ask=algorithm.query_outputs: (
        asked.append(algorithm.finetune_lr) or ask(params, batch, number)
    )
    run.test(algorithm, datamodule=data, verbose=False)
    assert asked[: 3 * len(RATES)] == [rate for rate in RATES for _ in range(3)]
    assert algorithm.finetune_lr in RATES and algorithm.describe_algorithm()["finetune_lr"] == algorithm.finetune_lr
    assert algorithm.evaluation["inner_steps"] == ([0, 2] if algorithm.finetune_lr else [0])
    chosen = algorithm_for(PMF, data, backbone=partial(Conv4, width=4), eval_finetune_steps=2, eval_finetune_lr=0.001)
    run.test(chosen, datamodule=data, verbose=False)
    assert chosen.evaluation["inner_steps"] == [0, 2] and chosen.finetune_lr == 0.001


def test_pictures_are_changed_each_in_its_own_way():
    pictures = torch.rand(6, 3, 16, 16)
    first, again = (changed(pictures, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, again) and first.shape == pictures.shape
    same = changed(pictures[:1].repeat(6, 1, 1, 1), torch.Generator().manual_seed(1))
    assert all(not torch.allclose(same[0], other) for other in same[1:])
    assert changed(pictures, torch.Generator(), share=0.0) is pictures
    vectors = torch.rand(6, 7)
    assert changed(vectors, torch.Generator()) is vectors


def test_shifts_leave_black_and_keep_the_rest():
    ramp = torch.arange(1.0, 17).repeat(1, 1, 16, 1)
    for seed in range(8):
        found = changed(ramp, torch.Generator().manual_seed(seed))
        lines = (found[0, 0] != 0).any(0).sum()
        assert 14 <= lines <= 16  # an eighth of 16 at most
