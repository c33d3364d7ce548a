"""The documentation runs: Python blocks marked `runnable` are executed, TOML parses, hooks are as described."""

import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from greensv.plugin_checks import HOOK_OF_KIND, HOOKS, interface_of

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "plugins/*/README.md", "studies/*/README.md")
    for page in ROOT.glob(pattern)
)
BLOCK = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, info: str) -> Iterator[tuple[int, str]]:
    """Yields the line number and the text of each block of that kind."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if block["info"].strip() == info:
            line = text.count("\n", 0, block.start("text"))
            yield line, "\n".join(row.removeprefix(block["indent"]) for row in block["text"].split("\n"))


def pages_with(info: str) -> list[Path]:
    return [page for page in PAGES if any(blocks(page, info))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def page_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An importable module for a page's blocks, which build on one another."""
    module = ModuleType("page_of_the_documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("page", pages_with("python runnable"), ids=name)
def test_runnable_python_runs(page: Path, page_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for line, text in blocks(page, "python runnable"):
        # Empty lines first, so that a traceback shows the line in the page.
        exec(compile("\n" * line + text, str(page), "exec"), vars(page_module))


@pytest.mark.parametrize("page", pages_with("toml"), ids=name)
def test_toml_parses(page: Path):
    for line, text in blocks(page, "toml"):
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            pytest.fail(f"{name(page)}:{line + 1}: {error}")


def test_some_page_has_code_that_runs():
    assert ROOT / "docs" / "plugins.md" in pages_with("python runnable")
    assert ROOT / "docs" / "plugins.md" in pages_with("toml")


PLUGINS_PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


def test_every_hook_has_an_entry_and_every_entry_is_a_hook():
    assert re.findall(r"^### (greensv_\w+)$", PLUGINS_PAGE, re.MULTILINE) == list(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hooks_entry_has_its_exact_signature_and_what_its_docstring_says(hook: str):
    entry = PLUGINS_PAGE.split(f"### {hook}\n")[1].split("\n## ")[0].split("\n### ")[0]
    function = HOOKS[hook]
    signature = str(inspect.signature(function)).replace("'", "")
    assert f"```python\ndef {hook}{signature}\n```" in entry
    assert " ".join((inspect.getdoc(function) or "").split()) in " ".join(entry.split())


@pytest.mark.parametrize("interface", list(map(interface_of, HOOK_OF_KIND)), ids=lambda interface: interface.__name__)
def test_every_interface_is_named_where_its_hook_is(interface: type):
    assert f"`{interface.__module__}.{interface.__name__}`" in PLUGINS_PAGE


def test_every_contract_suite_of_the_page_exists_and_none_is_missing():
    shipped = {path.stem for path in (ROOT / "src" / "greensv" / "testing").glob("*_contract.py")}
    assert set(re.findall(r"`greensv\.testing\.(\w+_contract)\.\w+`", PLUGINS_PAGE)) == shipped


def test_the_contract_suite_shown_on_the_page_passes_for_the_backbone_shown(page_module: ModuleType):
    for _, text in blocks(ROOT / "docs" / "plugins.md", "python runnable"):
        exec(text, vars(page_module))
    suite = page_module.TestAverages()
    tests = [method for attribute, method in inspect.getmembers(suite) if attribute.startswith("test_")]
    assert len(tests) >= 8
    for test in tests:
        test()
