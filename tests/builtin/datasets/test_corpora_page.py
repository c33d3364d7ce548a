"""docs/how-to/corpora.md names options that are there, and an entry for every built-in dataset."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from greensv.config.load import validate
from greensv.plugins import load_plugins

PAGE = (Path(__file__).parents[3] / "docs/how-to/corpora.md").read_text(encoding="utf-8")


def test_the_studies_of_the_page_are_understood_and_every_dataset_has_one() -> None:
    plugins = load_plugins(third_party=False)
    named = set()
    for text in re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        dataset = tomllib.loads(text)["dataset"]
        options, problems = validate(plugins.get("dataset", dataset["name"]).options_type, dataset["options"])
        assert options is not None
        assert problems == []
        named.add(dataset["name"])
    assert named == set(plugins.components["dataset"])


def test_corpora_that_must_be_fetched_say_where() -> None:
    datasets = {dataset.name: dataset for dataset in load_plugins(third_party=False).all("dataset")}
    for name in ("voxceleb", "cnceleb", "commonbench", "kiwano"):
        assert "https://" in datasets[name].where_to_get


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg command")
def test_the_conversion_of_m4a_files_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    folder = tmp_path / "dev/aac/id 1"
    folder.mkdir(parents=True)
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", folder / "it's.m4a"], check=True)
    (folder / "it's.part").write_bytes(b"half a file")
    shutil.copy(folder / "it's.m4a", folder / "done.m4a")
    (folder / "done.wav").write_bytes(b"whole")
    (command,) = (text for text in re.findall(r"^  ```sh\n(.*?)^  ```$", PAGE, re.MULTILINE | re.DOTALL))
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["done.m4a", "done.wav", "it's.m4a", "it's.wav"]
    assert soundfile.info(folder / "it's.wav").samplerate == 16_000
    assert (folder / "done.wav").read_bytes() == b"whole"
