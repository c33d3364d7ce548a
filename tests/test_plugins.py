"""Finding plugins among installed distributions, which are real: modules and dist-info folders on sys.path."""

import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from greensv import __version__
from greensv.errors import PluginError
from greensv.hookspecs import hookimpl
from greensv.plugins import BUILTIN_PLUGINS, load_plugins, plugins_from
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import IntRange

BACKBONE = """
from greensv.hookspecs import hookimpl
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import IntRange

class Tiny(Backbone):
    name = {name!r}

    def space(self):
        return {{"width": IntRange(low=1, high=4, default=2)}}

    def build(self, params, *, features):
        from torch import nn
        return nn.Linear(features.num_features, int(params["width"]))

@hookimpl
def greensv_backbones():
    return [Tiny()]
"""
HEAD = "from greensv.hookspecs import hookimpl\n"

Install = Callable[..., None]
unique = itertools.count()


class Tiny(Backbone):
    name = "tiny"

    def space(self):
        return {"width": IntRange(low=1, high=4, default=2)}

    def build(self, params, *, features):
        from torch import nn

        return nn.Linear(features.num_features, int(params["width"]))


def install_in(
    folder: Path, distribution: str, source: str, *, plugin: str | None = None, metadata: bool = True
) -> None:
    # Imported modules stay in sys.modules: each test gets names of its own.
    module = f"{distribution.replace('-', '_')}_{next(unique)}"
    (folder / f"{module}.py").write_text(source)
    dist_info = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
    dist_info.mkdir()
    (dist_info / "entry_points.txt").write_text(f"[greensv]\n{plugin or distribution} = {module}\n")
    if metadata:
        (dist_info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution with one module; only what a test installs, and greensv's built-ins, are then loaded."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def install(distribution: str, source: str, *, plugin: str | None = None, metadata: bool = True) -> None:
        install_in(tmp_path, distribution, source, plugin=plugin, metadata=metadata)
        names.append(plugin or distribution)
        monkeypatch.setenv("GREENSV_LOAD_PLUGINS", ",".join(names))

    return install


def the_problem() -> str:
    plugins = load_plugins()
    (problem,) = plugins.problems
    assert set(plugins.components["backbone"]) >= {"resnet"}, "a broken plugin must not take the built-ins with it"
    return problem


def test_every_builtin_loads_and_provides_something():
    plugins = load_plugins(third_party=False)
    assert plugins.problems == ()
    providers = {c.provider.plugin for components in plugins.components.values() for c in components.values()}
    assert providers == set(BUILTIN_PLUGINS)
    assert {c.provider.version for c in plugins.components["meter"].values()} == {__version__}


def test_an_installed_plugin_provides_its_components_with_their_origin(install: Install):
    install("acme-nets", BACKBONE.format(name="acme"), plugin="acme")
    component = load_plugins().component("backbone", "acme")
    assert (component.kind, component.name) == ("backbone", "acme")
    assert str(component.provider) == "plugin 'acme' of acme-nets 1.2"
    assert component.instance.space()["width"].high == 4
    assert load_plugins().get("backbone", "acme").name == "acme"


def test_components_of_a_kind_come_in_order_of_name():
    zoo = [type("Net", (Tiny,), {"name": name})() for name in ("zebra", "ant")]
    module = SimpleNamespace(greensv_backbones=hookimpl(lambda: zoo, specname="greensv_backbones"))
    plugins = plugins_from({"zoo": module}, builtins=False)
    assert [backbone.name for backbone in plugins.all("backbone")] == ["ant", "zebra"]


def test_an_unknown_component_is_told_with_the_nearest_name_and_the_installed_ones():
    module = SimpleNamespace(greensv_backbones=hookimpl(lambda: [Tiny()], specname="greensv_backbones"))
    plugins = plugins_from({"mine": module}, builtins=False)
    with pytest.raises(PluginError, match=r"^no backbone named 'tyni'; did you mean 'tiny'\? \(installed: tiny\)$"):
        plugins.get("backbone", "tyni")
    with pytest.raises(PluginError, match=r"^no meter named 'tiny' \(installed: none\)$"):
        plugins.get("meter", "tiny")


def test_an_unknown_component_beside_a_broken_plugin_says_that_it_may_be_in_there(install: Install):
    install("acme", "import nothing_of_that_name")
    with pytest.raises(PluginError, match="some plugins did not load, see `greensv plugins`"):
        load_plugins().get("backbone", "acme")


def test_an_unknown_component_names_the_plugins_that_were_left_out(install: Install, monkeypatch: pytest.MonkeyPatch):
    install("acme", BACKBONE.format(name="acme"))
    with pytest.raises(PluginError, match=r"not loaded because of --no-plugins or GREENSV_LOAD_PLUGINS: .*acme"):
        load_plugins(third_party=False).get("backbone", "acme")
    monkeypatch.setenv("GREENSV_LOAD_PLUGINS", "")
    plugins = load_plugins()
    assert plugins.problems == ()
    assert "acme" not in plugins.components["backbone"]
    assert "acme" in plugins.left_out


def test_plugins_to_load_may_be_named_by_their_distribution(install: Install, monkeypatch: pytest.MonkeyPatch):
    install("acme-nets", BACKBONE.format(name="acme"), plugin="nets")
    install("other-nets", BACKBONE.format(name="other"), plugin="nets")
    monkeypatch.setenv("GREENSV_LOAD_PLUGINS", " acme-nets, ")
    plugins = load_plugins()
    assert plugins.problems == ()
    assert set(plugins.components["backbone"]) == {*load_plugins(third_party=False).components["backbone"], "acme"}


def test_two_distributions_may_give_their_plugin_the_same_name(install: Install):
    install("acme-nets", BACKBONE.format(name="acme"), plugin="nets")
    install("other-nets", BACKBONE.format(name="other"), plugin="nets")
    plugins = load_plugins()
    assert plugins.problems == ()
    assert plugins.component("backbone", "acme").provider.distribution == "acme-nets"
    assert plugins.component("backbone", "other").provider.distribution == "other-nets"


def test_naming_a_plugin_to_load_that_is_not_installed_is_a_problem(install: Install, monkeypatch: pytest.MonkeyPatch):
    install("acme", BACKBONE.format(name="acme"))
    monkeypatch.setenv("GREENSV_LOAD_PLUGINS", "acmee")
    assert the_problem().startswith(
        "GREENSV_LOAD_PLUGINS names 'acmee', which is not installed; did you mean 'acme'? (installed: acme"
    )


def test_of_two_components_with_one_name_neither_wins_and_both_owners_are_named(install: Install):
    install("acme", BACKBONE.format(name="resnet"))
    install("other", BACKBONE.format(name="other"))
    plugins = load_plugins()
    (problem,) = plugins.problems
    assert problem == (
        "2 backbones are named 'resnet', and none is used: they come from "
        f"plugin 'greensv.builtin.backbones.resnet' of greensv {__version__} and plugin 'acme' of acme 1.2; "
        "uninstall one, or leave one out with --no-plugins or GREENSV_LOAD_PLUGINS"
    )
    built_in = set(load_plugins(third_party=False).components["backbone"])
    assert set(plugins.components["backbone"]) == {*built_in, "other"} - {"resnet"}
    assert {backbone.name for backbone in plugins.all("backbone")} == {*built_in, "other"} - {"resnet"}
    with pytest.raises(PluginError) as caught:
        plugins.get("backbone", "resnet")
    assert str(caught.value) == problem
    assert plugins.unknown("backbone", "resnet") == problem


def test_one_plugin_with_two_components_of_one_name_is_told_to_rename():
    module = SimpleNamespace(greensv_backbones=hookimpl(lambda: [Tiny(), Tiny()], specname="greensv_backbones"))
    plugins = plugins_from({"mine": module}, builtins=False)
    assert plugins.problems == (
        "plugin 'mine' of mine 0 provides 2 backbones named 'tiny', and none is used; rename all but one",
    )


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "import nothing_of_that_name",
            "cannot be imported (ModuleNotFoundError: "
            "No module named 'nothing_of_that_name'); mend, update or remove that package",
        ),
        ("1 +", "cannot be imported (SyntaxError: "),
        ("import sys; sys.exit('I am a script')", "cannot be imported (SystemExit: I am a script); mend"),
        ("raise ValueError(3)", "cannot be imported (ValueError: 3); mend"),
        ("x = 1", "implements no hook; mark its functions with `@greensv.hookspecs.hookimpl`"),
        (
            HEAD + "@hookimpl\ndef greensv_backbone(): ...",
            "implements an unknown hook 'greensv_backbone'; "
            "did you mean 'greensv_backbones'? (hooks: greensv_backbones, greensv_datasets, greensv_meters, "
            "greensv_carbon_sources, greensv_trial_finished)",
        ),
        (
            "def greensv_backbones(): ...",
            "has a greensv_backbones that is not marked; put `@greensv.hookspecs.hookimpl` above it",
        ),
        (
            HEAD + "@hookimpl\ndef greensv_meters(machine): ...",
            f"asks for machine in greensv_meters, which greensv "
            f"{__version__} does not give (it gives: nothing); update greensv, or take an older version of that "
            "package",
        ),
        (
            HEAD + "@hookimpl\ndef greensv_trial_finished(trial, *, epoch, study_name, extra=1): ...",
            "asks for epoch in "
            f"greensv_trial_finished, which greensv {__version__} does not give (it gives: study_name, trial); update",
        ),
        (
            HEAD + "@hookimpl(wrapper=True)\ndef greensv_backbones():\n  return (yield)",
            "wraps the hook greensv_backbones; wrappers are not called, so return components of its own instead",
        ),
        (HEAD + "@hookimpl\ndef greensv_backbones(): return 1 / 0", "greensv_backbones failed (ZeroDivisionError: "),
        (
            HEAD + "@hookimpl\ndef greensv_backbones(): pass",
            "greensv_backbones failed (TypeError: it should "
            "return a list of backbones, found None); mend or update that package",
        ),
        (HEAD + "@hookimpl\ndef greensv_backbones(): return 'tiny'", "greensv_backbones failed (TypeError: it should "),
        (
            HEAD + "@hookimpl\ndef greensv_meters(): return [3]",
            "greensv_meters returned a int, which is no meter; derive it from greensv.energy.meter.Meter",
        ),
        (
            BACKBONE.format(name="Tiny_Net"),
            "greensv_backbones returned a backbone named 'Tiny_Net'; "
            "use small letters, digits and single hyphens, such as 'my-backbone'",
        ),
        (
            BACKBONE.format(name=None),
            "greensv_backbones returned a backbone without a name (Tiny); give it a class attribute `name`",
        ),
        (
            BACKBONE.format(name="tiny").replace("Tiny()", "Tiny"),
            "greensv_backbones returned the class Tiny, not an instance; return Tiny()",
        ),
        (
            BACKBONE.format(name="tiny").replace("name = ", "version = '2'; name = "),
            "greensv_backbones returned the backbone 'tiny', whose version should be a whole number, found '2'",
        ),
        (
            BACKBONE.format(name="tiny").replace("def space", "def spaces"),
            "greensv_backbones failed (TypeError: Can't instantiate abstract class Tiny",
        ),
        (
            HEAD + "class Plugin:\n  @hookimpl\n  def greensv_meters(self): return []\nimport sys\n"
            "sys.modules[__name__] = Plugin",
            "names the class Plugin; name a module, or an instance of the class",
        ),
        (
            "class Plugin:\n  @property\n  def greensv_meters(self): raise OSError('no bus')\nimport sys\n"
            "sys.modules[__name__] = Plugin()",
            f"does not fit greensv {__version__} (OSError: no bus); update it or greensv",
        ),
    ],
)
def test_a_broken_plugin_is_a_problem_that_says_what_to_do(install: Install, source: str, problem: str):
    install("acme", source)
    found = the_problem()
    assert found.startswith(("plugin 'acme' of acme 1.2 ", "plugin 'acme' of acme 1.2: "))
    assert found.removeprefix("plugin 'acme' of acme 1.2").lstrip(": ").startswith(problem)


METER = """
from greensv.energy.meter import Meter
from greensv.hookspecs import hookimpl

class Plug(Meter):
    name = "plug"
    {attributes}

    def probe(self, request): ...
    def open(self, request): ...

@hookimpl
def greensv_meters():
    return [Plug()]
"""
DATASET = """
from greensv.hookspecs import hookimpl
from greensv.speaker.dataset import Dataset

class Corpus(Dataset):
    name = "corpus"
    {attributes}

    def load(self, root, options, *, cache_dir, progress): ...
    def load_tests(self, root, options, *, cache_dir, progress): ...

@hookimpl
def greensv_datasets():
    return [Corpus()]
"""


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            METER.format(attributes="pass"),
            "the meter 'plug', whose quality should be one of measured, attributed, estimated",
        ),
        (
            METER.format(attributes="quality = 'measured'; options_type = dict"),
            "the meter 'plug', whose options_type should be a frozen dataclass, or None",
        ),
        (DATASET.format(attributes="pass"), "the dataset 'corpus', whose options_type should be a frozen dataclass"),
    ],
)
def test_a_component_without_what_its_interface_asks_for_is_a_problem(install: Install, source: str, problem: str):
    install("acme", source)
    assert the_problem().endswith(f" returned {problem}")


def test_a_meter_with_all_its_attributes_is_fine(install: Install):
    install("acme", METER.format(attributes="quality = 'measured'"))
    assert load_plugins().get("meter", "plug").quality == "measured"


def test_good_components_of_a_plugin_stay_beside_a_bad_one(install: Install):
    install("acme", BACKBONE.format(name="tiny").replace("[Tiny()]", "[3, Tiny(), 4]"))
    plugins = load_plugins()
    assert len(plugins.problems) == 2
    assert "tiny" in plugins.components["backbone"]


def test_a_hook_of_a_newer_greensv_may_be_marked_optional(install: Install):
    install("acme", BACKBONE.format(name="tiny") + "\n@hookimpl(optionalhook=True)\ndef greensv_of_the_future(): ...")
    plugins = load_plugins()
    assert plugins.problems == ()
    assert "tiny" in plugins.components["backbone"]


def test_a_module_registered_twice_is_a_problem(install: Install, tmp_path: Path):
    install("acme", BACKBONE.format(name="tiny"))
    entry_points = tmp_path / "acme-1.2.dist-info" / "entry_points.txt"
    module = entry_points.read_text().split("= ")[1]
    install("other", "")
    other = tmp_path / "other-1.2.dist-info" / "entry_points.txt"
    other.write_text(f"[greensv]\nother = {module}")
    assert the_problem() == (
        "plugin 'other' of other 1.2 names a module that another plugin has already registered; "
        "remove one of the two entry points"
    )
    assert "tiny" in load_plugins().components["backbone"]


def test_a_half_removed_distribution_without_metadata_still_has_an_owner(install: Install):
    install("acme", BACKBONE.format(name="tiny"), metadata=False)
    provider = load_plugins().component("backbone", "tiny").provider
    assert provider.distribution.startswith("acme_")
    assert provider.version == "unknown"


def test_an_unreadable_distribution_is_named_and_the_others_are_found(install: Install, tmp_path: Path):
    install("acme", BACKBONE.format(name="tiny"))
    broken = tmp_path / "broken-0.1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (broken / "entry_points.txt").write_text("[console_scripts]\nthis is no entry point\n")
    plugins = load_plugins()
    (problem,) = plugins.problems
    assert problem.startswith("the entry points of broken 0.1 cannot be read (")
    assert problem.endswith("reinstall or remove that package")
    assert plugins.component("backbone", "tiny").provider.distribution == "acme"


def test_finished_trials_are_told_to_every_plugin_with_the_arguments_it_names(caplog: pytest.LogCaptureFixture):
    told: list[object] = []

    class Plugin:
        def __init__(self, function: Callable[..., None]) -> None:
            self.greensv_trial_finished = function

    @hookimpl(specname="greensv_trial_finished")
    def both(trial, study_name):
        told.append((study_name, trial["number"]))
        trial["number"] = -1  # a plugin's copy, not the next plugin's

    @hookimpl(specname="greensv_trial_finished")
    def one(*, trial):
        told.append(trial["number"])

    @hookimpl(specname="greensv_trial_finished")
    def failing(study_name):
        raise RuntimeError("the message board is down")

    functions = {"both": both, "failing": failing, "one": one}
    plugins = plugins_from({n: SimpleNamespace(greensv_trial_finished=f) for n, f in functions.items()}, builtins=False)
    assert plugins.problems == ()
    with caplog.at_level(logging.ERROR):
        plugins.notify_trial_finished(study_name="night", trial={"number": 7})
    assert sorted(told, key=str) == [("night", 7), 7]
    assert "greensv_trial_finished of plugin 'failing' of failing 0 failed" in caplog.text
    assert "the message board is down" in caplog.text


def run_greensv(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("GREENSV_LOAD_PLUGINS", None)
    command = [sys.executable, "-m", "greensv", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_line_works_beside_broken_packages(tmp_path: Path):
    install_in(tmp_path, "broken-import", "import nothing_of_that_name")
    install_in(tmp_path, "a-script", "import sys; print('hello'); sys.exit(3)")
    install_in(tmp_path, "misspelt", HEAD + "@hookimpl\ndef greensv_backbone(): ...")
    install_in(tmp_path, "acme", BACKBONE.format(name="resnet"))
    result = run_greensv(tmp_path, "plugins")
    assert result.returncode == 0, result.stderr
    told = " ".join((result.stdout + result.stderr).split())
    for owner in ("broken-import", "a-script", "misspelt", "acme"):
        assert f"of {owner} 1.2" in told
    assert "Traceback" not in told
    assert "kaldi" in result.stdout


def test_what_a_plugin_prints_does_not_reach_the_output_that_other_programs_read(tmp_path: Path):
    install_in(
        tmp_path,
        "chatty",
        "print('hello')\n" + BACKBONE.format(name="chatty").replace("return [", "print('hi'); return ["),
    )
    result = run_greensv(tmp_path, "plugins", "--json")
    assert result.returncode == 0, result.stderr
    assert "chatty" in {json.loads(line)["name"] for line in result.stdout.splitlines()}
    assert "hello\nhi\n" in result.stderr


def test_no_plugins_loads_the_builtins_alone_and_broken_packages_stay_silent(tmp_path: Path):
    install_in(tmp_path, "broken-import", "import nothing_of_that_name")
    install_in(tmp_path, "acme", BACKBONE.format(name="resnet"))
    result = run_greensv(tmp_path, "--no-plugins", "describe", "ResNet-50-D", "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert json.loads(result.stdout)["system"] == "ResNet-50-D"


def test_looking_for_plugins_loads_nothing_heavy():
    heavy = ("torch", "optuna", "soundfile", "pynvml", "pyRAPL", "pydantic", "scipy")
    code = (
        "import sys; from greensv.plugins import load_plugins; load_plugins(); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"
