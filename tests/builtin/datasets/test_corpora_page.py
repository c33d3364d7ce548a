"""docs/how-to/corpora.md names options that are there, and an entry for every built-in dataset."""

import re
import tomllib
from pathlib import Path

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
