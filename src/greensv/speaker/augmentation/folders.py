"""The folders that noise and rooms are read from, and what to do where one is missing."""

from pathlib import Path

from greensv.config import Augmentation, Disturbance
from greensv.errors import DataError

WHERE_TO_GET = {
    "noise_root": "MUSAN (noise, music, speech) is at https://www.openslr.org/17",
    "rir_root": "RIRS_NOISES (simulated and real rooms) is at https://www.openslr.org/28",
}
"""Of the two roots in the configuration, what is commonly put there."""


def folders_of(way: Disturbance, config: Augmentation) -> list[Path]:
    """Returns the folders that a way of disturbing takes its files from; none where it is built in."""
    root = config.rir_root if way.kind == "reverb" else config.noise_root
    if root is None or way.probability == 0:
        return []
    return [Path(root) / folder for folder in way.folders] or [Path(root)]


def folder_problems(config: Augmentation) -> list[tuple[str, str]]:
    """Returns, for each folder that is missing, the key of the configuration that names it, and what to do."""
    problems = []
    for key, root in (("noise_root", config.noise_root), ("rir_root", config.rir_root)):
        if root is not None and not Path(root).is_dir():
            what = f"there is no folder {root}; {WHERE_TO_GET[key]}; without {key} the built-in sounds are used"
            problems.append((key, what))
    for number, way in enumerate(config.disturbances):
        key = "rir_root" if way.kind == "reverb" else "noise_root"
        missing = [folder for folder in folders_of(way, config) if not folder.is_dir()]
        if missing and key not in dict(problems):
            names = ", ".join(str(folder) for folder in missing)
            what = f"there is no folder {names}; correct folders or {key}; {WHERE_TO_GET[key]}"
            problems.append((f"disturbances[{number}].folders", what))
    return problems


def check_folders(config: Augmentation) -> None:
    """Raises DataError naming every folder that is missing, and what to do."""
    problems = folder_problems(config)
    if problems:
        raise DataError("\n".join(f"recipe.augmentation.{where}: {what}" for where, what in problems))
