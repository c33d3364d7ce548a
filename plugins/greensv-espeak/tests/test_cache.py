import dataclasses
import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from greensv.errors import DataError, PluginError
from greensv.speaker.dataset import Utterances, ignore_progress
from greensv_espeak import cache
from greensv_espeak.options import EspeakOptions, Split

OPTIONS = EspeakOptions(
    num_train_speakers=18,
    num_train_utterances=1,
    num_test_speakers=2,
    num_test_utterances=2,
    min_duration_s=0.5,
    max_duration_s=0.6,
)
NUM_BATCHES = 3


def rendered(folder: Path, options: EspeakOptions = OPTIONS, *, split: Split = "train") -> Utterances:
    return cache.rendered(split, options, cache_dir=folder, progress=ignore_progress)


def hashes(utterances: Utterances) -> list[str]:
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in utterances.paths]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Utterances:
    return rendered(tmp_path_factory.mktemp("full"))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the batches that are rendered from here on."""
    seen: list[str] = []
    run = cache._run

    def counted(job: cache.Job) -> None:
        seen.append(Path(job.folder).name)
        run(job)

    monkeypatch.setattr(cache, "_run", counted)
    return seen


def child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Replaces the rendering process by one that runs `code`."""
    run = subprocess.run

    def replaced(command: Sequence[str], **keywords: object) -> object:
        return run([sys.executable, "-c", code], **keywords)  # type: ignore[call-overload]

    monkeypatch.setattr(cache.subprocess, "run", replaced)


def test_audio_is_byte_for_byte_the_same_in_another_cache(tmp_path: Path, full: Utterances) -> None:
    assert hashes(rendered(tmp_path)) == hashes(full)


def test_no_two_utterances_are_alike(full: Utterances) -> None:
    assert len(set(hashes(full))) == len(full) == 18


def test_progress_counts_batches(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    cache.rendered("train", OPTIONS, cache_dir=tmp_path, progress=lambda *step: told.append(step))
    assert told == [("rendering train voices", done, NUM_BATCHES) for done in range(NUM_BATCHES + 1)]


def test_a_rendered_split_is_not_rendered_again(tmp_path: Path, runs: list[str]) -> None:
    rendered(tmp_path, split="test")
    assert len(runs) == 1
    rendered(tmp_path, split="test")
    assert len(runs) == 1


def test_other_options_are_another_split_and_counts_of_other_splits_are_not(tmp_path: Path, runs: list[str]) -> None:
    rendered(tmp_path, split="test")
    rendered(tmp_path, dataclasses.replace(OPTIONS, num_train_speakers=5), split="test")
    assert len(runs) == 1
    rendered(tmp_path, dataclasses.replace(OPTIONS, seed=1), split="test")
    assert len(runs) == 2


def test_an_interrupted_rendering_continues_where_it_was(tmp_path: Path, full: Utterances, runs: list[str]) -> None:
    batches = [Path(path).parent for path in rendered(tmp_path).paths]
    runs.clear()
    batches[0].rename(batches[0].with_name(f"{batches[0].name}.partial"))  # killed before it was complete
    Path(rendered(tmp_path).paths[-1]).unlink()  # cleaned up by someone
    runs.clear()
    again = rendered(tmp_path)
    assert runs == [f"{batches[-1].name}.partial"]
    assert hashes(again) == hashes(full)


def test_searches_that_start_together_render_each_batch_once(tmp_path: Path, full: Utterances, runs: list[str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: rendered(tmp_path), range(2)))
    assert len(runs) == len(set(runs)) == NUM_BATCHES
    assert hashes(both[0]) == hashes(both[1]) == hashes(full)


def test_a_crash_of_espeak_is_an_error_that_can_be_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        child(patch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        with pytest.raises(DataError, match=r"rendering test voices 0 to 1 failed: killed by SIGKILL; .* to continue"):
            rendered(tmp_path, split="test")
    assert len(rendered(tmp_path, split="test")) == 4


def test_the_reason_of_a_failure_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "raise OSError('no space left')")
    with pytest.raises(DataError, match="failed: OSError: no space left"):
        rendered(tmp_path, split="test")


def test_a_library_that_cannot_be_loaded_is_a_plugin_s_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "fake" / "espeakng_loader"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("def get_library_path(): return '/nowhere/libespeak-ng.so'\n")
    monkeypatch.setenv("PYTHONPATH", str(fake.parent))
    with pytest.raises(PluginError, match=r"espeak-ng cannot be loaded from /nowhere/libespeak-ng\.so .* reinstall"):
        rendered(tmp_path, split="test")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be kept in .*file/espeak/test-.* \(Not a directory\)"):
        rendered(tmp_path / "file", split="test")


def test_the_parent_process_never_loads_the_library() -> None:
    code = "import greensv_espeak.cache, sys; print([m for m in sys.modules if m in ('espeakng_loader', 'torch')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_listing_the_plugin_loads_neither_audio_nor_torch() -> None:
    assert importlib.util.find_spec("soundfile")
    code = "import greensv_espeak, sys; print([m for m in sys.modules if m in ('soundfile', 'torch', 'optuna')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
