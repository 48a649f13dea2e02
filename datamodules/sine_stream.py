"""Sine waves, one after the other."""

from functools import cached_property
from typing import Any

import numpy as np

from app.errors import check_at_least
from datamodules.base.regression_stream import RegressionStream


class SineStream(RegressionStream):
    """Incremental Sine Waves (Javed and White 2019, "OML", section 4.1): y = amplitude * sin(z + phase), wave after wave.

    The input is z in [-5, 5] and the number of the wave, one-hot; amplitudes are in U[0.1, 5] and phases in U[0, pi], as in the
    paper. There each wave has 40 batches of 8. The test samples of a wave are at evenly spaced z.

    Args:
        num_waves: experiences of the stream.
        train_samples: training samples of a wave.
        test_samples: test samples of a wave.
        kwargs: of RegressionStream.
    """

    num_inputs = output_size = 1
    digest = "sine waves: amplitude 0.1-5, phase 0-pi, z -5-5"

    def __init__(self, num_waves: int = 10, train_samples: int = 320, test_samples: int = 100, **kwargs):
        super().__init__(**kwargs)
        check_at_least(1, "data", num_waves=num_waves, train_samples=train_samples)
        check_at_least(2, "data", test_samples=test_samples)
        self.num_waves, self.train_samples, self.test_samples = num_waves, train_samples, test_samples

    @property
    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("num_waves", "train_samples", "test_samples")}

    @cached_property
    def _waves(self) -> list[tuple[float, float]]:
        """Amplitude and phase of each."""
        draws = [self.generator("wave", number) for number in range(self.num_waves)]
        return [(draw.uniform(0.1, 5.0), draw.uniform(0.0, np.pi)) for draw in draws]

    @property
    def titles(self) -> list[str]:
        return [f"{amplitude:.2f} sin(z + {phase:.2f})" for amplitude, phase in self._waves]

    @cached_property
    def functions(self) -> list[dict[str, tuple[np.ndarray, np.ndarray]]]:
        found, grid = [], np.linspace(-5.0, 5.0, self.test_samples)[:, None]
        for number, (amplitude, phase) in enumerate(self._waves):
            drawn = self.generator("z", number).uniform(-5.0, 5.0, (self.train_samples, 1))
            found.append({split: (z, amplitude * np.sin(z + phase)) for split, z in (("train", drawn), ("test", grid))})
        return found
