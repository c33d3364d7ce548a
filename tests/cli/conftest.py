import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from greensv.cli.main import main
from tiny.study import STUDY_TOML, Lab, install, young_and_quick


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Greensv = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny_environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a process in which the tiny plugin, and no other, is installed."""
    return install(tmp_path_factory.mktemp("site-packages"))


@pytest.fixture(scope="module", autouse=True)
def tiny_searches() -> Iterator[None]:
    with young_and_quick():
        yield


@pytest.fixture
def greensv(
    tiny_environment: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Greensv:
    """Runs `greensv ARGUMENTS` in this process, in an empty folder, the tiny plugin installed."""
    for path in tiny_environment["PYTHONPATH"].split(":"):
        monkeypatch.syspath_prepend(path)
    for name in ("GREENSV_LOAD_PLUGINS", "XDG_CACHE_HOME", "COLUMNS"):
        monkeypatch.setenv(name, tiny_environment[name])
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["greensv", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def start(tiny_environment: Mapping[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `greensv ARGUMENTS` in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "greensv", *map(str, arguments)],
            env={**tiny_environment, **environment},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY_TOML)
    return path


@pytest.fixture(scope="session")
def _searched(tmp_path_factory: pytest.TempPathFactory, tiny_environment: Mapping[str, str]) -> Path:
    with pytest.MonkeyPatch.context() as patch, young_and_quick():
        patch.setenv("XDG_CACHE_HOME", tiny_environment["XDG_CACHE_HOME"])
        lab = Lab(folder=tmp_path_factory.mktemp("searched"))

        # The second trial, the dearest, diverges; so the study has trials of two kinds.
        from greensv.search.events import TrialStarted
        from tiny.work import WORK

        def listen(event: object) -> None:
            if isinstance(event, TrialStarted):
                WORK.explodes = event.number == 1

        lab.on_event = listen
        lab.search(max_trials=4, budget_j=36_000.0)
    return lab.folder


@pytest.fixture
def searched(_searched: Path, tmp_path: Path) -> Path:
    """A folder with `runs/greensv.db`, in which the study `tiny` has three complete trials and a failed one."""
    shutil.copytree(_searched / "runs", tmp_path / "runs")
    return tmp_path


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved network of the real residual backbone, the smallest, of random weights."""
    import torch

    from greensv.builtin.backbones.resnet import ResNet
    from greensv.config import FeatureConfig
    from greensv.speaker import space
    from greensv.speaker.checkpoint import CheckpointInfo, save_checkpoint

    backbone, features, folder = ResNet(), FeatureConfig(), tmp_path_factory.mktemp("small") / "checkpoint"
    params = space.lowest(backbone.space())
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = backbone.build(params, features=features)
        with torch.no_grad():
            network(torch.randn(4, 50, 81), None)
    info = CheckpointInfo(
        backbone=backbone.name,
        backbone_version=backbone.version,
        params=params,
        features=features,
        embedding_dim=network.embedding_dim,
    )
    save_checkpoint(folder, network, info)
    return folder


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder of recordings: three good ones of several lengths, and one of each kind that is not."""
    import numpy as np
    import soundfile

    folder, rng = tmp_path / "recordings", np.random.default_rng(0)
    folder.mkdir()
    noise = rng.normal(0, 0.1, 16_000)
    for name, num_samples in (("a.wav", 16_000), ("b.flac", 9_000), ("c.wav", 4_321)):
        soundfile.write(folder / name, noise[:num_samples], 16_000)
    soundfile.write(folder / "bad-8k.wav", noise, 8_000)
    soundfile.write(folder / "bad-short.wav", noise[:100], 16_000)
    soundfile.write(folder / "bad-nan.wav", np.where(np.arange(16_000) == 5, np.nan, noise), 16_000, subtype="FLOAT")
    (folder / "bad-empty.wav").write_bytes(b"")
    (folder / "bad-cut.flac").write_bytes((folder / "b.flac").read_bytes()[:6_000])
    soundfile.write(folder / "silent.wav", np.zeros(8_000), 16_000)
    return folder
