"""What a person is told of answers."""

from types import SimpleNamespace

import numpy as np

from app.deploy.advice import confidence


def test_confidence_that_nothing_has_checked_is_told():
    """Of one example a class none can be left out: how sure the answers may be is known of tasks of training alone."""
    probabilities, algorithm = np.array([[0.9, 0.1], [0.4, 0.6]]), SimpleNamespace(validated_on=None)
    alone = SimpleNamespace(held_out=None, algorithm=algorithm)
    ((_, told),) = confidence(alone, ["a", "b"], probabilities)
    assert told.startswith("75 % on average, so about 2 of 2 should be right if these are like those of training")
    assert told.endswith("not checked: no example could be left out")
    checked = SimpleNamespace(held_out=object(), algorithm=algorithm)
    ((_, told),) = confidence(checked, ["a", "b"], probabilities)
    assert "should be right;" in told and "not checked" not in told
