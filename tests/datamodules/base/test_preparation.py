"""Pictures normalised and changed at random, against torchvision's functions."""

from itertools import islice

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from helpers.small import Blots
from torchvision.transforms import RandomResizedCrop

from app.errors import InputError
from datamodules.base.augmentation import Augmentation, PaddedCrop, ResizedCrop, described
from datamodules.base.counter import streams
from datamodules.base.normalisation import Normalisation, chosen, measured

KINDS = {"padded": PaddedCrop(padding=4), "resized": ResizedCrop(scale=(0.2, 1.0)), "tall": ResizedCrop(ratio=(0.1, 0.2))}
each_kind = pytest.mark.parametrize("kind", KINDS)


def keys(count):
    return streams(np.array(7, np.uint64), np.arange(count))


def by_torchvision(pixels, plan):
    top, left, height, width, flip, *factors = plan.tolist()
    size = list(pixels.shape[1:])
    padded = TF.crop(TF.pad(pixels, [40] * 4), int(top) + 40, int(left) + 40, int(height), int(width))
    pixels = TF.resize(padded, size, antialias=True)
    changes = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)
    for number in map(int, factors[3:]):
        pixels = changes[number](pixels, factors[number])
    return TF.hflip(pixels) if flip else pixels


@each_kind
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 20, 28)])
def test_equals_torchvision(kind, shape):
    pixels, plan = torch.rand(40, *shape), KINDS[kind].plan(keys(40), shape)
    expected = torch.stack([by_torchvision(*pair) for pair in zip(pixels, plan, strict=True)])
    torch.testing.assert_close(KINDS[kind](pixels, plan), expected, rtol=0, atol=5e-6)


@each_kind
def test_the_draws_are_as_wide_as_the_options_say(kind):
    plan = KINDS[kind].plan(keys(4000), (3, 32, 32))
    corners, sizes, flip, factors, orders = plan[:, :2], plan[:, 2:4], plan[:, 4], plan[:, 5:8], plan[:, 8:]
    assert abs(flip.mean() - 0.5) < 0.03 and len(orders.unique(dim=0)) == 6
    assert (factors.min(0).values - 0.6).abs().max() < 0.01 and (factors.max(0).values - 1.4).abs().max() < 0.01
    if kind == "padded":
        assert corners.unique().tolist() == list(range(-4, 5)) and sizes.unique().tolist() == [32]
        return
    assert (corners >= 0).all() and (corners + sizes <= 32).all() and (sizes >= 1).all()
    if kind == "resized":
        torch.manual_seed(0)
        params = [RandomResizedCrop.get_params(torch.zeros(3, 32, 32), [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
        theirs = torch.tensor(params, dtype=torch.float64)
        assert (theirs.mean(0) - plan[:, :4].mean(0)).abs().max() < 0.5 and (theirs.std(0) - plan[:, :4].std(0)).abs().max() < 0.5


def test_nothing_is_changed_where_nothing_is_asked_for():
    pixels, still = torch.rand(5, 3, 8, 8), PaddedCrop(padding=0, flip=False, brightness=0, contrast=0, saturation=0)
    assert torch.equal(still(pixels, still.plan(keys(5), (3, 8, 8))), pixels)


def test_a_description_makes_it_again():
    for kind in KINDS.values():
        again = described(kind.describe())
        assert torch.equal(again.plan(keys(9), (3, 16, 16)), kind.plan(keys(9), (3, 16, 16)))
        assert again.describe() == kind.describe()
    assert {type(kind) for kind in KINDS.values()} == set(Augmentation.__subclasses__())


def test_mean_and_deviation_of_the_training_pictures():
    images = np.random.default_rng(0).integers(0, 256, (1500, 3, 5, 5), dtype=np.uint8)
    found, scaled = measured(images), images.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(found.mean, scaled.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.std, scaled.std(1), rtol=1e-9)
    pixels = torch.rand(2, 4, 3, 5, 5, dtype=torch.float64)
    expected = TF.normalize(pixels.flatten(0, 1), found.mean, found.std).view(pixels.shape)
    torch.testing.assert_close(found(pixels), expected)
    torch.testing.assert_close(found.undone(found(pixels)), pixels)
    assert chosen("imagenet", 3) == Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert measured(np.zeros((2, 1, 3, 3), np.uint8)).std == (1.0,)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("imagenet", r"normalise has 3 means and 3 standard deviations, and a picture has 1 channels"),
        (((0.5,), (0.0,)), r"normalise is .*; give finite means, and standard deviations above 0"),
    ],
)
def test_wrong_normalisation(option, words):
    data = Blots(normalise=option, queries=2)
    data.setup()
    with pytest.raises(InputError, match=words):
        data.check()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PaddedCrop(brightness=1.5), r"augment\.brightness is 1.5; give 0 to 1"),
        (lambda: PaddedCrop(padding=-1), r"augment\.padding is -1"),
        (lambda: ResizedCrop(scale=(0.5, 2.0)), r"augment\.scale is \[0.5,2.0\]"),
        (lambda: ResizedCrop(ratio=(2.0, 1.0)), r"augment\.ratio is \[2.0,1.0\]"),
        (lambda: PaddedCrop(padding=16).check((1, 16, 16)), r"padding 16 can leave nothing of 16x16 pixels; give less than 16"),
    ],
)
def test_wrong_augmentation(make, words):
    with pytest.raises(InputError, match=words):
        make()


def blots(**options):
    sizes = {"ways": 3, "shots": 2, "queries": 2, "meta_batch_size": 4}
    data = Blots(**sizes, augment=PaddedCrop(padding=2), normalise="train", **options)
    data.setup()
    return data


class Run:
    training = True

    def __init__(self, rank, size):
        self.global_rank, self.world_size = rank, size


def batches(data, count):
    return [data.on_after_batch_transfer(batch, 0) for batch in islice(data.train_dataloader(), count)]


@pytest.mark.parametrize("processes", [1, 2])
def test_pictures_are_changed_alike_on_two_processes_and_after_a_resume(processes):
    whole, shares = batches(blots(), 4), []
    for rank in range(processes):
        data = blots()
        data.trainer = Run(rank, processes)
        data.load_state_dict({"cursor": 2, "manifest_hash": data.manifest_hash})
        shares.append(batches(data, 2))
    for batch, *parts in zip(whole[2:], *shares, strict=True):
        for number, tensor in enumerate(batch):
            torch.testing.assert_close(torch.cat([part[number] for part in parts]), tensor, rtol=1e-6, atol=1e-6)


def test_each_picture_is_changed_in_its_own_way_in_training_alone():
    data, plain = blots(), Blots(ways=3, shots=2, queries=2, meta_batch_size=4)
    plain.setup()
    for split in ("val", "test"):
        ours, theirs = data.episode(split, 3), plain.episode(split, 3)
        torch.testing.assert_close(data.pixels(ours.query_x), theirs.query_x, rtol=0, atol=1e-6)
    ours, theirs = data.episode("train", 5), plain.episode("train", 5)
    assert torch.equal(ours.support_y, theirs.support_y)
    plan = data.augment.plan(data.picture_keys("train", [5], 12), data.input_shape)[0]
    assert len(plan[:, :5].unique(dim=0)) > 8
    for pixels, changed, of_it in zip(theirs.support_x, data.pixels(ours.support_x), plan[:6], strict=True):
        torch.testing.assert_close(changed, by_torchvision(pixels, of_it), rtol=0, atol=1e-5)
    again = data.episode("train", 6)
    assert not torch.allclose(again.support_x, ours.support_x)


def test_copies_of_a_support_set():
    data = blots()
    support_x = torch.stack([data.episode("test", index).support_x for index in (4, 5)])
    copies = data.support_copies(support_x, 3, "test", 4)
    assert copies.shape == (2, 18, 1, 16, 16)
    torch.testing.assert_close(copies[1:], data.support_copies(support_x[1:], 3, "test", 5), rtol=1e-6, atol=1e-6)
    pixels = data.pixels(support_x)[1]
    plan = data.augment.plan(data.picture_keys("test", [5], 18), data.input_shape)[0]
    for number in (0, 1, 3, 17):
        expected = by_torchvision(pixels[number // 3], plan[number])
        torch.testing.assert_close(data.pixels(copies[1, number]), expected, rtol=0, atol=1e-5)
