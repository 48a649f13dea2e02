"""Where the inner loop adapts the head alone, the features of the queries are computed once for all stages."""

import pytest
import torch
from helpers.small import METHODS, options, random_tasks, small_run, take
from torch.testing import assert_close

HEAD_ALONE = [name for name, (cls, _) in METHODS.items() if "adapted" in options(cls) and "eval_inner_steps" in options(cls)]


@pytest.mark.parametrize("transductive", [True, False])
@pytest.mark.parametrize("method", HEAD_ALONE)
def test_the_outputs_are_those_of_the_whole_network(method, transductive):
    wanted = {"adapted": "head", "inner_steps": 2, "eval_inner_steps": 3, "transductive": transductive}
    algorithm, _ = small_run(method, "classification", **wanted)
    params, episode = dict(algorithm.eval().named_parameters()), take(random_tasks(), 0)
    stages = list(enumerate(algorithm.adaptation(params, episode.support_x, episode.support_y)))
    forwards = []
    if algorithm.body_is_fixed:
        algorithm.net.body.register_forward_hook(lambda *_: forwards.append(1))
    found = dict(algorithm.outputs_at(iter(stages), params, episode.query_x))
    assert len(forwards) == (1 if algorithm.body_is_fixed else 0) and sorted(found) == [0, 1, 2, 3]
    for stage, adapted in stages:
        assert_close(found[stage], algorithm.predict(params, adapted, episode.query_x), rtol=1e-5, atol=1e-6)
    assert not torch.equal(found[0], found[3])
