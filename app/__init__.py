"""Meta-learning, and `app.load(checkpoint).adapt(support_x, support_y).predict(query_x)`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.deploy.inputs import Polarity
    from app.deploy.living_learner import LivingLearner
    from app.deploy.predictor import Predictor


def load(
    ckpt_path: str, device: str | None = None, polarity: "Polarity" = "auto", encoder_weights: str | None = None, **options: Any
) -> "Predictor":
    """What a checkpoint has learned, ready to adapt to classes or functions of a person's own.

    It answers each query by itself, however the run was tested; with `transductive=True` those of a call together.

    Args:
        ckpt_path: of a run of this application; it alone says what the algorithm, the network and the inputs are.
        device: where to compute, null for a GPU where there is one.
        polarity: of pictures of lines: dark_on_light, light_on_dark, or auto for what most of the support set are.
        encoder_weights: file of the weights of the encoder that it was trained with, where it is not in its place.
        options: of the algorithm that are to differ from the run's, such as `transductive=True` or `eval_inner_steps=20`.

    Raises:
        InputError: there is no such file, it is no checkpoint of this version, or an option is not the algorithm's.
    """
    from app.deploy.checkpoint import restored

    return restored(ckpt_path, device, options, polarity, encoder_weights)


def load_learner(path: str, device: str | None = None, encoder_weights: str | None = None) -> "LivingLearner":
    """A learner that lives, with all that it has learned.

    Args:
        path: of a file that `LivingLearner.save` or `train.py learn` wrote.
        device: where to compute, null for a GPU where there is one.
        encoder_weights: as of `load`.

    Raises:
        InputError: there is no such file, it is not whole, or is of another version.
    """
    from app.deploy.living_learner import LivingLearner

    return LivingLearner.load(path, device, encoder_weights)
