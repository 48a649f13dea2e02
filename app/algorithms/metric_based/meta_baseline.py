"""Meta-Baseline."""

from app.algorithms.metric_based.protonet import ProtoNet


class MetaBaseline(ProtoNet):
    """The cosine to the class means, its scale learned, on a network that all training classes taught before (Chen et al. 2021).

    The network is that of a run of `Baseline`: --model.init_from its checkpoint.

    Args:
        scale: of the cosines, at the start.
        learns_scale: the scale is learned; else it stays.
        kwargs: of ProtoNet, whose distance is the cosine.
    """

    def __init__(self, scale: float = 10.0, learns_scale: bool = True, **kwargs):
        super().__init__(distance="cosine", scale=scale, learns_scale=learns_scale, **kwargs)
