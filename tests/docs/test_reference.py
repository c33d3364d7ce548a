"""The reference is what the code says, and what the other pages quote of it is true."""

import ast
import dataclasses
import importlib.util
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal, get_args

import click
import pytest
from annotated_types import Ge, Gt, Le

from greensv.builtin.meters import estimate, nvml, powercap
from greensv.builtin.meters.estimate import EstimateOptions
from greensv.cli.main import COMMANDS, cli
from greensv.config import EnergyConfig, StudyConfig
from greensv.energy.books import charging
from greensv.energy.books.budget import Purpose
from greensv.energy.meter import Quality
from greensv.plugins import Plugins, load_plugins
from greensv.search import measuring, metering

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
ACCOUNTING = (DOCS / "energy-accounting.md").read_text(encoding="utf-8")


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    """docs/generate.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def documented(generate: ModuleType) -> Plugins:
    """The installed components; the pages can be written only where all distributions they describe are installed."""
    plugins = load_plugins()
    installed = {c.provider.distribution for kind in plugins.components.values() for c in kind.values()}
    if missing := set(generate.DISTRIBUTIONS) - installed:
        pytest.skip(f"the reference describes {', '.join(sorted(missing))}, which is not loaded; uv installs all")
    return plugins


@pytest.mark.parametrize("page", ["cli.md", "configuration.md"])
def test_the_committed_page_is_what_the_code_gives(page: str, generate: ModuleType, documented: Plugins):
    path = DOCS / "reference" / page
    written = path.read_text(encoding="utf-8")
    assert written == generate.pages()[path], "run `uv run python docs/generate.py`"


def test_help_of_every_command_is_on_the_page(generate: ModuleType):
    headings = re.findall(r"^## (.+)$", generate.cli_page(), re.MULTILINE)
    assert headings == ["greensv", *(f"greensv {command}" for command in COMMANDS)]


def test_every_key_of_a_study_is_on_the_page_and_says_what_it_means(generate: ModuleType):
    def records(record: type) -> Iterator[type]:
        yield record
        for _, (nested, _) in generate._inner_tables(record):
            yield from records(nested)

    found = list(records(StudyConfig))
    assert len(found) == 10
    for record in found:
        docstrings = generate.attribute_docstrings(record)
        inner = dict(generate._inner_tables(record))
        fields = [field.name for field in dataclasses.fields(record) if field.name not in inner]
        assert [name for name in fields if not docstrings.get(name)] == [], record


def test_a_table_gives_type_bounds_default_and_meaning(generate: ModuleType):
    @dataclass(frozen=True, kw_only=True)
    class Options:
        depth: Annotated[int, Ge(1), Le(9)]
        """How deep, over
        two lines."""
        share: Annotated[float, Gt(0)] | None = None
        kind: Literal["a", "b"] = "a"
        """One of two."""
        names: tuple[str, ...] = ("x",)

    assert generate.keys_table(Options).splitlines()[2:] == [
        "| `depth` | whole number, at least 1, at most 9 | required | How deep, over two lines. |",
        "| `share` | number, above 0 | not set |  |",
        '| `kind` | `"a"` or `"b"` | `"a"` | One of two. |',
        '| `names` | list of text | `["x"]` |  |',
    ]


def test_a_bound_without_words_is_an_error_and_not_left_out(generate: ModuleType):
    with pytest.raises(ValueError, match="no words for the constraint"):
        generate.type_in_words(Annotated[int, "even"])


def test_options_and_spaces_of_the_components_are_on_the_page(generate: ModuleType, documented: Plugins):
    page = generate.configuration_page()
    assert '| `train` | text | `"train"` | The data directory of the training utterances. |' in page
    assert "| `depth` | whole number, 4 to 139, its logarithm drawn evenly | `16` |" in page
    assert "| `width_log2` | number, -4 to 2, in steps of 0.5 | `0.0` |" in page
    for kind in ("backbone", "dataset", "meter"):
        for name in documented.components[kind]:
            assert f"### {kind.capitalize()} `{name}`" in page


def test_notes_on_parameters_name_all_of_them(generate: ModuleType, documented: Plugins):
    for backbone, note in generate.PARAMETER_NOTES.items():
        named = set(
            re.findall(r"`(\w+)`", note.replace("`share_1` to `share_4`", "`share_1` `share_2` `share_3` `share_4`"))
        )
        assert documented.get("backbone", backbone).space().keys() <= named


@pytest.mark.parametrize("word", [*get_args(Purpose), *get_args(Quality)])
def test_every_purpose_and_quality_is_explained(word: str):
    assert f"| `{word}` |" in ACCOUNTING or f"**{word}**" in ACCOUNTING


def test_the_constants_of_the_estimate_are_as_the_page_says():
    for field in dataclasses.fields(EstimateOptions)[:3]:
        assert f"| `{field.name}` | {field.default} W |" in ACCOUNTING


def test_resolutions_and_uncertainties_are_as_the_page_says():
    rows = {
        "`nvml`": (nvml.RESOLUTION_S, nvml.GAIN_UNCERTAINTY),
        "`rapl`": (powercap.RESOLUTION_S, powercap.GAIN_UNCERTAINTY),
        "`estimate`": (estimate.RESOLUTION_S, estimate.GAIN_UNCERTAINTY),
    }
    for meter, (resolution_s, gain) in rows.items():
        row = next(line for line in ACCOUNTING.splitlines() if line.startswith("|") and f"| {meter} |" in line)
        assert row.endswith(f"| {1000 * resolution_s:g} ms | ±{gain:.0%} |".replace("%", " %"))
    assert f"P_max = {powercap.MAX_POWER_W:g} W" in ACCOUNTING


def test_the_times_of_the_books_are_as_the_page_says():
    assert f"the process runs, every {metering.FLUSH_INTERVAL_S:g} s" in ACCOUNTING
    assert f"silent for {metering.LEASE_TTL_S:g} s" in ACCOUNTING
    next_beat_s = metering.FLUSH_INTERVAL_S + EnergyConfig().interval_s + charging._BUSY_ALLOWANCE_S
    assert f"at most {next_beat_s:g} s" in ACCOUNTING
    assert f"up to {next_beat_s + metering.LEASE_TTL_S:g} s are charged" in ACCOUNTING
    assert f"The first {measuring.WARMUP_STEPS} steps are left out" in ACCOUNTING
    assert f"{measuring.PROBE_S:.0f} s after {measuring.PROBE_WARMUP_STEPS} warm-up steps" in ACCOUNTING


def message_templates() -> list[str]:
    """Every text in greensv's source, with … for what is filled in."""
    found = []
    for path in (ROOT / "src" / "greensv").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.JoinedStr(values=parts):
                    texts = (part.value if isinstance(part, ast.Constant) else "…" for part in parts)
                    found.append("".join(map(str, texts)))
                case ast.Constant(value=str(text)):
                    found.append(text)
    return found


def test_the_error_messages_that_how_tos_explain_exist():
    templates = message_templates()
    tables = {
        page: re.split(r"^\| message.*\n\| --- \| --- \|\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for page in sorted((DOCS / "how-to").glob("*.md"))
    }
    with_messages = {page: table for page, table in tables.items() if len(table) > 1}
    assert {page.stem for page in with_messages} >= {"corpora", "gpu", "own-data"}
    for page, table in with_messages.items():
        assert len(table) == 2, page
        quoted = re.findall(r"^\| `([^`]+)` \|", table[1].split("\n\n")[0], re.MULTILINE)
        assert len(quoted) >= 5
        assert [message for message in quoted if not any(message in text for text in templates)] == []


def commands_of(page: Path) -> list[str]:
    """The greensv command lines in a page's shell blocks, from the word after `greensv` on."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [match[1] for line in lines if (match := re.match(r"(?:.* )?greensv ([^#…]+)", line))]


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)], ids=page_name)
def test_commands_in_the_documentation_are_understood(page: Path):
    parent = click.Context(cli, info_name="greensv")
    for line in commands_of(page):
        # All options of `greensv` itself are flags.
        name, *arguments = itertools.dropwhile(lambda word: word.startswith("-"), shlex.split(line))
        command = cli.get_command(parent, name)
        assert command is not None, line
        try:
            command.make_context(name, arguments, parent=parent)
        except click.UsageError as error:
            pytest.fail(f"{page_name(page)}: greensv {line}: {error.format_message()}")


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_between_pages_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target
