"""A whole run of train.py, data included, against learn2learn's own example: steps per second, seconds to an accuracy.

uv run python -m benchmarks.end_to_end --data_dir DIR [--device cuda]

MAML on Omniglot, 5-way 1-shot, 1 query, 1 inner step of 0.5, 32 tasks, Adam with 0.003, Conv4-64 with strides, 1100 / 100 / 423
classes. learn2learn's is its examples/vision/maml_omniglot.py with OmniglotCNN in place of OmniglotFC; it validates on 32 tasks
in every step, and its validation accuracy here is the mean over the last 200 of them. Ours validates on 200 tasks.
All seconds count from the start of the process.
"""

import random
import sys
import time
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from app.errors import InputError
from benchmarks.clock import train
from benchmarks.learn2learn_omniglot import import_learn2learn, tasksets, unpacked
from benchmarks.measure import arguments, describe_machine, print_table, write_json

TARGETS = (0.95, 0.97, 0.98)
WAYS, META_BATCH_SIZE, FAST_LR, META_LR, VAL_TASKS = 5, 32, 0.5, 0.003, 200


def ours(data_dir: Path, device: str, seconds: float, *options: str) -> dict[str, Any]:
    """One run of train.py, ended by the time or the last target.

    Args:
        data_dir: folder of the archives.
        device: cpu or cuda.
        seconds: of training.
        options: more of the command line.
    """
    minutes, rest = divmod(round(seconds), 60)
    command = f"""fit --model MAML --model.inner_lr {FAST_LR} --model.inner_steps 1 --model.eval_inner_steps 1
        --model.optimizer Adam --model.optimizer.lr {META_LR} --data Omniglot --data.data_dir {data_dir.absolute()}
        --data.split_protocol random_1200_423 --data.ways {WAYS} --data.shots 1 --data.queries 1
        --data.meta_batch_size {META_BATCH_SIZE} --data.val_episodes {VAL_TASKS}
        --trainer.accelerator {"gpu" if device == "cuda" else "cpu"} --trainer.devices 1 --trainer.max_steps=-1
        --trainer.max_time 00:00:{minutes:02}:{rest:02} --trainer.val_check_interval 100"""
    with TemporaryDirectory() as folder:
        events = train(Path(folder), *command.split(), *options, target=TARGETS[-1])
    start, end, leaving = (next(event for event in events if event["event"] == name) for name in ("start", "end", "exit"))
    curve = [(event["time"], event["accuracy"]) for event in events if event["event"] == "validation"]
    return {
        "steps": end["step"],
        "steps_per_second": end["step"] / (end["time"] - start["time"]),
        "steps_per_second_of_the_process": end["step"] / leaving["time"],
        "curve": curve,
    }


def theirs(root: Path, device: str, seconds: float) -> dict[str, Any]:
    """The loop of learn2learn's example, ended by the time or the last target.

    Args:
        root: of `unpacked`.
        device: cpu or cuda.
        seconds: of training; a step that has begun is finished.
    """
    begun = time.perf_counter()
    l2l = import_learn2learn()
    random.seed(42)
    np.random.seed(42)
    torch.manual_seed(42)
    tasks = tasksets(root, WAYS, samples=2)
    model = l2l.vision.models.OmniglotCNN(WAYS).to(device)
    maml = l2l.algorithms.MAML(model, lr=FAST_LR, first_order=False)
    optimizer = torch.optim.Adam(maml.parameters(), META_LR)
    loss = nn.CrossEntropyLoss(reduction="mean")

    def adapted(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, float]:
        learner = maml.clone()
        data, labels = batch[0].to(device), batch[1].to(device)
        learner.adapt(loss(learner(data[::2]), labels[::2]))
        predictions = learner(data[1::2])
        error = loss(predictions, labels[1::2])
        return error, float((predictions.argmax(1) == labels[1::2]).float().mean())

    recent: deque[float] = deque(maxlen=VAL_TASKS)
    curve: list[tuple[float, float]] = []
    start, steps, training = time.perf_counter(), 0, 0.0
    while time.perf_counter() - start < seconds and not (curve and curve[-1][1] >= TARGETS[-1]):
        optimizer.zero_grad()
        for _ in range(META_BATCH_SIZE):
            began = time.perf_counter()
            error, _ = adapted(tasks.train.sample())
            error.backward()
            training += time.perf_counter() - began
            error, accuracy = adapted(tasks.validation.sample())
            error.item()
            recent.append(accuracy)
        for parameter in maml.parameters():
            parameter.grad.mul_(1.0 / META_BATCH_SIZE)
        optimizer.step()
        steps += 1
        if len(recent) == VAL_TASKS:
            curve.append((time.perf_counter() - begun, sum(recent) / VAL_TASKS))
    return {
        "steps": steps,
        "steps_per_second": steps / (time.perf_counter() - start),
        "steps_per_second_of_the_process": steps / (time.perf_counter() - begun),
        "steps_per_second_without_validation": steps / training,
        "curve": curve,
    }


def row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """What the table says of one of them."""
    cells = {
        "": name,
        "steps": result["steps"],
        "steps/s": result["steps_per_second"],
        "steps/s with the start": result["steps_per_second_of_the_process"],
        "steps/s without validation": result.get("steps_per_second_without_validation"),
    }
    for target in TARGETS:
        reached = next((seconds for seconds, accuracy in result["curve"] if accuracy >= target), None)
        cells[f"s to {target:.0%}"] = reached if reached is not None else "not reached"
    accuracies = [100 * accuracy for _, accuracy in result["curve"]]
    return cells | {"best (%)": max(accuracies, default=None)}


def main() -> int:
    """Runs both and prints."""
    parser = arguments(__doc__, "end_to_end")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of omniglot-py/ with both archives")
    parser.add_argument("--seconds", type=float, default=300, help="of our training at most (default 300)")
    parser.add_argument("--rival_seconds", type=float, default=180, help="of learn2learn's at most (default 180)")
    options = parser.parse_args()
    machine = describe_machine(options.device)
    try:
        results = {
            "train.py": ours(options.data_dir, options.device, options.seconds),
            "learn2learn": theirs(
                unpacked(options.data_dir, options.out.parent / "learn2learn"), options.device, options.rival_seconds
            ),
        }
    except (InputError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_table(f"MAML, Omniglot 5-way 1-shot, on {machine['device']}", [row(*item) for item in results.items()])
    mine, other = results.values()
    ratios = {
        "as written": mine["steps_per_second"] / other["steps_per_second"],
        "learn2learn without its validation": mine["steps_per_second"] / other["steps_per_second_without_validation"],
    }
    print("ratio of steps/s: " + ", ".join(f"{ratio:.1f} {name}" for name, ratio in ratios.items()))
    write_json(options.out, machine=machine, results=results, ratios=ratios)
    return 0


if __name__ == "__main__":
    sys.exit(main())
