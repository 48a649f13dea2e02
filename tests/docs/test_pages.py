"""What the pages say exists: links, anchors, files, options, rooms."""

import inspect
import re
from pathlib import Path

import pytest
from helpers.command_line import ROOT
from helpers.pages import PAGES, anchors, inline, links
from lightning import Trainer
from test_rooms import MODULES, ROOMS

import app.command_line.cli  # noqa: F401, which imports all that has options
from app.continual.base.method import ContinualMethod
from app.deploy.command import Predict
from app.deploy.embed import Embed
from app.deploy.learn_command import Learn
from app.deploy.predict_learner import PredictLearner
from app.learners.learner import Learner, concrete_subclasses
from app.runs.tracking import RunLogger
from datamodules.base.encoder import Encoder
from datamodules.base.resumable import ResumableDataModule

WITH_RESULTS = [*PAGES, ROOT / "RESULTS.md"]
TOP_FOLDERS = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
OTHERS = {"--config", "--model", "--data", "--model.method", "--trainer.logger", "--seed_everything", "--max_restarts"}


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_first_page_is_short_and_leads_to_all_others():
    readme = PAGES[0]
    assert len(readme.read_text().splitlines()) <= 150
    reached = {(readme.parent / link.split("#")[0]).resolve() for link in links(readme)}
    assert set(WITH_RESULTS) - {readme} <= reached


@pytest.mark.parametrize("page", WITH_RESULTS, ids=named)
def test_every_link_leads_somewhere(page: Path):
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_is_named_exists(page: Path):
    """Of code such as `app/main.py`; the files that docs/extending.md makes are named above their blocks alone."""
    places = [part.content for part in inline(page, "code_inline") if part.content.startswith(TOP_FOLDERS)]
    places = [place for place in places if f"**`{place}`**" not in page.read_text()]
    absent = [place for place in places if "<" not in place and not place.startswith("runs/") and not there(place)]
    assert not absent


def there(place: str) -> bool:
    """Whether all files exist that `folder/{a,b}.yaml` stands for."""
    whole = re.fullmatch(r"(.*)\{(.*)\}(.*)", place)
    places = [f"{whole[1]}{name}{whole[3]}" for name in whole[2].split(",")] if whole else [place]
    return all((ROOT / name).exists() for name in places)


def arguments(cls: type) -> set[str]:
    """Names of the constructor's arguments, those of its base classes included."""
    return {name for base in cls.__mro__ if "__init__" in vars(base) for name in inspect.signature(base).parameters}


def known_options() -> set[str]:
    """All options of all classes and benchmarks, as the command line has them."""
    bases = {"model": Learner, "data": ResumableDataModule, "model.method": ContinualMethod}
    sections = [(section, cls) for section, base in bases.items() for cls in concrete_subclasses(base)]
    sections += [("trainer", Trainer), ("trainer.logger", RunLogger), ("data.encoder", Encoder)]
    found = {f"--{section}.{name}" for section, cls in sections for name in arguments(cls)} | {*OTHERS}
    benchmarks = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    verbs = {f"--{name}" for verb in (Predict, PredictLearner, Learn, Embed) for name in arguments(verb)}
    return found | verbs | set(re.findall(r'"(--\w+)"', benchmarks))


def test_every_option_that_is_named_exists():
    known = known_options()
    unknown = []
    for page in PAGES:
        code = [word for part in inline(page, "code_inline") for word in part.content.split()]
        options = {word.split("=")[0].removesuffix("+") for word in code if word.startswith("--")}
        # Those below an option that is a class, such as --model.backbone.width, are checked where a command has them.
        options = {
            option
            for option in options
            if not re.match(r"--(model\.(backbone|optimizer|lr_scheduler)|data\.augment|trainer\.callbacks)\.", option)
        }
        unknown += [f"{named(page)}: {option}" for option in options - known]
    assert not unknown


def test_every_room_is_on_the_map():
    """The last table of docs/extending.md."""
    folders = {path.parent for path in MODULES.values() if path.name == "__init__.py"} | {ROOT / "app" / "runs"}
    rooms = {name.replace(".", "/") + "/" for name in ROOMS if ROOT / name.replace(".", "/") in folders}
    listed = {part.content for part in inline(ROOT / "docs" / "extending.md", "code_inline")}
    assert rooms - {"app/", "app/algorithms/"} <= listed
