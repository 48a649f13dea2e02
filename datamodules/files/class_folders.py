"""Pictures in folders that name their classes."""

from app.errors import InputError
from datamodules.files.picture_files import Picture, PictureFiles, printable

Classes = dict[str, list[Picture]]


SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def split_folders(files: PictureFiles, top: str) -> dict[str, str]:
    """The folders that are splits, by the splits' names; `Train`, `valid`, `testing` and the like are understood.

    Args:
        files: of a folder or an archive.
        top: path of the folder that holds them, empty or with a slash at its end.

    Raises:
        InputError: two folders are the same split.
    """
    found: dict[str, str] = {}
    inside = {folder[len(top) :] for folder in files.folders if folder.startswith(top)}
    for folder in sorted(folder for folder in inside if folder and "/" not in folder):
        split = split_named(folder)
        if split in found:
            raise InputError(f"{files.path / top} holds two folders for {split}, {found[split]} and {folder}; remove one")
        if split:
            found[split] = folder
    return found


def split_named(folder: str) -> str | None:
    """The split that a folder of this name is, null for any other name."""
    return next((split for split, names in SPLIT_NAMES.items() if folder.lower() in names), None)


def folder_around(files: PictureFiles, with_splits: bool = True) -> str:
    """The folders around the layout: those that hold all pictures and leave each of them a class folder.

    Args:
        files: of a folder or an archive.
        with_splits: whether folders named as splits belong to the layout themselves.
    """
    top = ""
    while True:
        rests = [picture.name[len(top) :] for picture in files.pictures]
        firsts = {rest.split("/")[0] for rest in rests}
        is_split = with_splits and all(map(split_named, firsts))
        if len(firsts) > 1 or is_split or any(rest.count("/") < 2 for rest in rests):
            return top
        top += firsts.pop() + "/"


def class_folders(files: PictureFiles, above: str, option: str) -> Classes:
    """The pictures of each class, by the sorted names of the class folders; `<class>/images/<picture>` is understood as well.

    Args:
        files: of a folder or an archive.
        above: path of the folder that holds the class folders, empty or with a slash at its end.
        option: that gave the files, for the messages.

    Raises:
        InputError: a picture is in no class folder or too deep, or a class folder holds none.
    """
    inside = (folder[len(above) :] for folder in files.folders if folder.startswith(above))
    classes = {printable(folder): [] for folder in sorted(inside) if folder and "/" not in folder}
    places = [(picture, picture.name[len(above) :].split("/")) for picture in files.pictures if picture.name.startswith(above)]
    # One folder of the same name in every class, such as `images`, says nothing.
    depth = 3 if all(len(place) == 3 for _, place in places) and len({place[1] for _, place in places}) == 1 else 2
    for picture, place in places:
        if len(place) != depth:
            where = "too deep" if len(place) > depth else "in no class folder"
            raise InputError(f"{option}: {picture} is {where}; move it to {files.path / above}/<class>/ or remove it")
        classes[printable(place[0])].append(picture)
    if empty := [label for label, pictures in classes.items() if not pictures]:
        raise InputError(
            f"{len(empty)} of the {len(classes)} classes in {option} {files.path / above} have no pictures, "
            f"the first is {empty[0]!r}; add pictures or remove the folder"
        )
    return classes
