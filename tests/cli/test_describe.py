import json
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from greensv.builtin.backbones.resnet import ResNet
from greensv.cli.describe import find_system, record_of
from greensv.cli.main import cli
from greensv.errors import ConfigError, PluginError
from greensv.hookspecs import hookimpl
from greensv.plugins import Plugins, plugins_from


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--no-plugins", "describe", *arguments])


class Rival(ResNet):
    """A second backbone with the same systems, and nothing to say of its stages."""

    name = "rival"

    def summary(self, params: object) -> dict[str, object]:
        return {"flavour": "plain"}


class RivalPlugin:
    @hookimpl
    def greensv_backbones(self) -> list[ResNet]:
        return [Rival()]


class ResNetPlugin:
    @hookimpl
    def greensv_backbones(self) -> list[ResNet]:
        return [ResNet()]


def installed(*plugins: object) -> Plugins:
    return plugins_from({type(plugin).__name__: plugin for plugin in plugins}, builtins=False)


def test_a_named_system_is_one_json_object_on_one_line() -> None:
    result = run("ResNet-50-D", "resnet-50-d[2,6,6,2]", "--json")
    assert result.exit_code == 0, result.output
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["system"] == "ResNet-50-D"
    assert first["backbone"] == "resnet"
    assert first["num_parameters"] == 15_635_968
    assert first["num_parameters_with_head"] == 17_170_432
    assert round(first["macs"] / 1e9, 2) == 50.76
    assert first["stages"] == [
        {"blocks": 3, "channels": 128},
        {"blocks": 4, "channels": 128},
        {"blocks": 6, "channels": 256},
        {"blocks": 3, "channels": 256},
    ]
    assert first["params"]["depth"] == 16
    assert first["summary"] == {"num_layers": 50}
    assert second["system"] == "ResNet-50-D[2,6,6,2]"
    assert [stage["blocks"] for stage in second["stages"]] == [2, 6, 6, 2]


def test_a_backbone_with_parameters_keeps_the_other_defaults() -> None:
    result = run("resnet:depth=8,width_log2=-3, block=basic-2", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    defaults = {name: parameter.default for name, parameter in ResNet().space().items()}
    assert record["params"] == {**defaults, "depth": 8, "width_log2": -3.0, "block": "basic-2"}
    assert record["system"] == "resnet:depth=8,width_log2=-3, block=basic-2"
    assert sum(stage["blocks"] for stage in record["stages"]) == 8


def test_a_backbone_alone_is_its_defaults() -> None:
    system = find_system("resnet", installed(ResNetPlugin()))
    assert system.params == {name: parameter.default for name, parameter in ResNet().space().items()}


def test_a_table_shows_names_with_brackets() -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        cli, ["--no-plugins", "describe", "ResNet-50-D[2,2,2,8]", "ResNet-50-W0.25"]
    )
    assert result.exit_code == 0, result.output
    assert "ResNet-50-D[2,2,2,8]" in result.output
    assert "15,847,424" in result.output
    assert "2,789,824" in result.output
    assert "2×32" not in result.output
    assert "3×32 4×32 6×64 3×64" in result.output


def test_list_names_every_system_and_its_backbone() -> None:
    result = run("--list")
    assert result.exit_code == 0
    backbones = [line.split("\t")[1] for line in result.output.splitlines()]
    assert {name: backbones.count(name) for name in backbones} == {
        "ecapa-tdnn": 3,
        "resnet": 15,
        "wespeaker-resnet": 7,
        "x-vector": 1,
    }
    assert "ResNet-18-D\tresnet" in result.output


def test_a_system_is_counted_for_the_features_it_was_published_for() -> None:
    result = run("WeSpeaker-ResNet34", "ResNet-34-D", "--json")
    assert result.exit_code == 0, result.output
    wespeaker, paper = (json.loads(line) for line in result.stdout.splitlines())
    assert (wespeaker["num_features"], wespeaker["num_parameters"]) == (80, 6_634_336)
    assert (paper["num_features"], paper["num_parameters"]) == (81, 14_925_056)
    table = run("WeSpeaker-ResNet34", "ResNet-34-D").output
    assert "350 frames (3.5 s) of 80 or 81 features" in " ".join(table.split())


def test_numbers_are_whole_in_a_narrow_terminal() -> None:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(cli, ["--no-plugins", "describe", "ResNet-50-W4"])
    assert "232,410,880" in result.output
    assert "811.677" in result.output


def test_nothing_asked_for_is_a_usage_error_that_lists_the_systems() -> None:
    result = run()
    assert result.exit_code == 2
    assert "ResNet-50-D[8,2,2,2]" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet-50d", "no system named 'resnet-50d'; did you mean 'ResNet-50-D'?"),
        ("resnets", "did you mean 'resnet'?"),
        ("resnet:dpth=8", "resnet has no parameter 'dpth'; did you mean 'depth'?"),
        ("resnet:depth", "depth has no value; write depth=16"),
        ("resnet:depth=8,depth=9", "depth is given twice"),
        ("resnet:depth=eight", "resnet: depth: 'eight' is not a whole number"),
        ("resnet:width_log2=x", "resnet: width_log2: 'x' is not a number"),
        ("resnet:width_log2=nan", "resnet: width_log2: nan is not a number"),
        ("resnet:block=basic", "'basic' is not one of basic-2, basic-3, bottleneck"),
    ],
)
def test_what_is_not_understood_is_explained(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_system(text, installed(ResNetPlugin()))
    assert message in str(caught.value)


def test_parameters_of_an_unknown_backbone_name_the_installed_ones() -> None:
    with pytest.raises(PluginError, match=r"no backbone named 'resnt'; did you mean 'resnet'"):
        find_system("resnt:depth=8", installed(ResNetPlugin()))


def test_a_name_that_two_backbones_give_is_refused() -> None:
    with pytest.raises(ConfigError, match="is a system of 'resnet' and 'rival'"):
        find_system("ResNet-50-D", installed(ResNetPlugin(), RivalPlugin()))


def test_a_backbone_that_tells_no_stages_has_none() -> None:
    record = record_of(find_system("rival:depth=4,width_log2=-4", installed(RivalPlugin())))
    assert record["stages"] == []
    assert record["summary"] == {"flavour": "plain"}


def test_the_command_line_prints_an_unknown_system_without_a_traceback() -> None:
    command = [sys.executable, "-m", "greensv", "--no-plugins", "describe", "ResNet-51-D"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "did you mean 'ResNet-50-D'" in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


def test_nothing_heavy_is_loaded_to_list_systems() -> None:
    code = (
        "import sys; from greensv.cli.main import cli; "
        "cli(['--no-plugins', 'describe', '--list'], standalone_mode=False); "
        "print([name for name in ('torch', 'optuna', 'rich') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.count("\tresnet\n") == 15
    assert result.stdout.splitlines()[-1] == "[]"
