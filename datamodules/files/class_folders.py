"""Pictures in folders that name their classes."""

from collections.abc import Collection

from app.errors import InputError
from datamodules.files.image_split import SPLITS
from datamodules.files.pictures import Picture, PictureFiles

Classes = dict[str, list[Picture]]


def folder_around(files: PictureFiles, layout: Collection[str] = SPLITS) -> str:
    """The folders around the layout: those that hold all pictures and leave each of them a class folder.

    Args:
        files: of a folder or an archive.
        layout: names of folders that belong to the layout themselves.
    """
    top = ""
    while True:
        rests = [picture.name[len(top) :] for picture in files.pictures]
        firsts = {rest.split("/")[0] for rest in rests}
        if len(firsts) > 1 or firsts <= set(layout) or any(rest.count("/") < 2 for rest in rests):
            return top
        top += firsts.pop() + "/"


def class_folders(files: PictureFiles, above: str, option: str) -> Classes:
    """The pictures of each class, by the sorted names of the class folders.

    Args:
        files: of a folder or an archive.
        above: path of the folder that holds the class folders, empty or with a slash at its end.
        option: that gave the files, for the messages.

    Raises:
        InputError: a picture is in no class folder or too deep, or a class folder holds none.
    """
    inside = (folder[len(above) :] for folder in files.folders if folder.startswith(above))
    classes = {folder: [] for folder in sorted(inside) if folder and "/" not in folder}
    for picture in files.pictures:
        if picture.name.startswith(above):
            label, _, rest = picture.name[len(above) :].partition("/")
            if not rest or "/" in rest:
                place = "too deep" if rest else "in no class folder"
                raise InputError(f"{option}: {picture} is {place}; move it to {files.path / above}/<class>/ or remove it")
            classes[label].append(picture)
    if empty := [label for label, pictures in classes.items() if not pictures]:
        raise InputError(
            f"{len(empty)} of the {len(classes)} classes in {option} {files.path / above} have no pictures, "
            f"the first is {empty[0]!r}; add pictures or remove the folder"
        )
    return classes
