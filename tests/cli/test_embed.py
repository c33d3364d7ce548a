"""`greensv embed` from audio files to a file of embeddings, as it is typed."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open

from greensv.builtin.backbones.resnet import ResNet
from greensv.cli.embed import embed
from greensv.errors import CheckpointError, ConfigError, DataError, GreensvError
from greensv.speaker.checkpoint import build_network, read_checkpoint
from greensv.speaker.features import Fbank, subtract_mean

GOOD = ("a.wav", "b.flac", "c.wav")


@pytest.fixture(autouse=True)
def in_the_folder(recordings: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(recordings)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(embed, [str(argument) for argument in arguments], obj={"third_party": False})


def error_of(result: Result, kind: type[GreensvError]) -> str:
    assert isinstance(result.exception, kind), (result.exception, result.output)
    return str(result.exception)


def read(path: Path | str) -> tuple[list[str], np.ndarray, dict[str, str]]:
    with safe_open(path, "np") as file:
        return json.loads(file.metadata()["ids"]), file.get_tensor("embeddings"), file.metadata()


def test_embeddings_are_those_of_the_network_one_by_one(small_checkpoint: Path, recordings: Path) -> None:
    result = run(small_checkpoint, *GOOD, "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    ids, rows, metadata = read("embeddings.safetensors")
    assert tuple(ids) == GOOD
    network = build_network(ResNet(), *read_checkpoint(small_checkpoint))
    info, _ = read_checkpoint(small_checkpoint)
    for name, row in zip(GOOD, rows, strict=True):
        samples, _ = soundfile.read(recordings / name, dtype="float32")
        with torch.inference_mode():
            features = subtract_mean(Fbank(info.features)(torch.from_numpy(samples)[None])[0])
            assert row == pytest.approx(network(features, None)[0].numpy(), abs=1e-4)
    record = json.loads(result.stdout)
    assert (record["num_utterances"], record["embedding_dim"], record["skipped"]) == (3, 256, [])
    assert record["speech_s"] == pytest.approx((16_000 + 9_000 + 4_321) / 16_000, abs=1e-3)
    assert json.loads(metadata["provenance"])["checkpoint"] == str(small_checkpoint)


def test_kaldi_form_names_utterances_as_the_wav_scp_does(small_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("anna a.wav\nben b.flac\nanna-again a.wav\n")
    result = run(small_checkpoint, "--list", tmp_path / "wav.scp", "--out", "e.ark")
    assert result.exit_code == 0, result.output
    assert "3 embeddings of 256 values" in result.stdout
    assert "Written to e.ark and e.scp" in result.stdout
    by_name = {}
    for line in Path("e.scp").read_text().splitlines():
        name, place = line.split()
        ark, offset = place.rsplit(":", 1)
        by_name[name] = np.frombuffer(Path(ark).read_bytes(), dtype="<f4", count=256, offset=int(offset) + 10)
    assert list(by_name) == ["anna", "ben", "anna-again"]
    assert np.array_equal(by_name["anna"], by_name["anna-again"])
    assert run(small_checkpoint, "a.wav", "b.flac").exit_code == 0
    _, rows, _ = read("embeddings.safetensors")
    assert by_name["anna"] == pytest.approx(rows[0], abs=1e-4)
    assert by_name["ben"] == pytest.approx(rows[1], abs=1e-4)


def test_relative_paths_of_a_list_start_at_the_data_root(
    small_checkpoint: Path, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("a.wav\n")
    monkeypatch.chdir(tmp_path)
    assert "a.wav is missing" in error_of(run(small_checkpoint, "--list", "list.txt"), DataError)
    assert run(small_checkpoint, "--list", "list.txt", "--data-root", recordings).exit_code == 0
    assert read("embeddings.safetensors")[0] == ["a.wav"]


BAD = {
    "bad-8k.wav": "8000 Hz",
    "bad-cut.flac": "damaged",
    "bad-empty.wav": "empty",
    "bad-nan.wav": "no numbers",
    "bad-short.wav": "only 100 samples",
}


@pytest.mark.parametrize("name", BAD)
def test_file_that_cannot_be_used_stops_it_and_is_named(name: str, small_checkpoint: Path) -> None:
    message = error_of(run(small_checkpoint, "a.wav", name), DataError)
    assert name in message
    assert BAD[name] in message
    assert not Path("embeddings.safetensors").exists()


def test_bad_files_are_left_out_and_listed_when_told_so(small_checkpoint: Path) -> None:
    names = ["a.wav", *BAD, "b.flac", "nowhere.wav", "c.wav", "a.wav"]
    result = run(small_checkpoint, *names, "--skip-bad", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    skipped = {Path(file["path"]).name: file["reason"] for file in record["skipped"]}
    assert skipped.keys() == {*BAD, "nowhere.wav"}
    assert all(words in skipped[name] for name, words in BAD.items())
    assert (record["num_utterances"], record["num_skipped"], record["num_repeated"]) == (3, 6, 1)
    ids, rows, _ = read("embeddings.safetensors")
    assert tuple(ids) == GOOD
    assert np.isfinite(rows).all()
    run(small_checkpoint, *GOOD, "--out", "good.safetensors")
    assert rows == pytest.approx(read("good.safetensors")[1], abs=1e-4)
    text = run(small_checkpoint, *names, "--skip-bad").stdout
    assert "6 files could not be used:" in text
    assert "bad-nan.wav holds values that are no numbers" in text
    assert "1 files were given once more" in text


def test_nothing_is_written_where_nothing_can_be_used(small_checkpoint: Path) -> None:
    for names in (["bad-empty.wav", "bad-8k.wav"], ["bad-nan.wav"]):
        message = error_of(run(small_checkpoint, *names, "--skip-bad"), DataError)
        assert f"none of {len(names)} files can be used" in message
    assert not Path("embeddings.safetensors").exists()


def test_other_sample_rates_are_resampled_when_told_so(small_checkpoint: Path) -> None:
    result = run(small_checkpoint, "bad-8k.wav", "--resample", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["speech_s"] == 2.0


def test_silent_file_is_warned_of(small_checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(small_checkpoint, "a.wav", "silent.wav").exit_code == 0
    assert "1 files are silent" in caplog.text
    assert "silent.wav" in caplog.text


def test_half_precision_is_near(small_checkpoint: Path) -> None:
    run(small_checkpoint, *GOOD, "--out", "fp32.safetensors")
    assert (
        run(small_checkpoint, *GOOD, "--out", "bf16.safetensors", "--precision", "bf16", "--device", "cpu").exit_code
        == 0
    )
    exact, near = read("fp32.safetensors")[1], read("bf16.safetensors")[1]
    assert not np.array_equal(exact, near)
    assert np.abs(exact - near).max() < 0.1 * np.abs(exact).max()
    assert json.loads(read("bf16.safetensors")[2]["provenance"])["precision"] == "bf16"


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("a.wav", "--out", "e.txt"), ConfigError, "end it in .safetensors or .ark"),
        (("a.wav", "--out", "no/e.ark"), ConfigError, "the folder no is missing or not writable"),
        (("a.wav", "--out", "folder.ark"), ConfigError, "it is a folder"),
        ((), DataError, "no audio file is given; name some, or a --list"),
        ((".",), DataError, "no Kaldi data directory"),
        (("--list", "no.scp"), DataError, "no file no.scp"),
    ],
)
def test_mistakes_are_told_before_the_network_is_loaded(
    arguments: tuple[str, ...], kind: type[GreensvError], message: str
) -> None:
    Path("folder.ark").mkdir()
    assert message in error_of(run("no-checkpoint", *arguments), kind)


def test_missing_checkpoint_is_an_error() -> None:
    assert "no-checkpoint does not exist" in error_of(run("no-checkpoint", "a.wav"), CheckpointError)


def test_real_speech_is_embedded_from_a_kaldi_directory(
    small_checkpoint: Path, speechocean762: Path, tmp_path: Path
) -> None:
    lines = (speechocean762 / "eval" / "wav.scp").read_text().splitlines()[:4]
    (tmp_path / "wav.scp").write_text("\n".join(lines))
    result = run(small_checkpoint, tmp_path, "--data-root", speechocean762)
    assert result.exit_code == 0, result.output
    assert read("embeddings.safetensors")[0] == [line.split()[0] for line in lines]


def test_the_reader_shown_in_the_documentation_reads_it(small_checkpoint: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "verify.md").read_text()
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    shown = next(block for block in blocks if "safe_open(" in block)
    assert run(small_checkpoint, *GOOD).exit_code == 0
    found: dict[str, object] = {}
    exec(shown, found)
    assert tuple(found["names"]) == GOOD  # type: ignore[arg-type]
    assert np.shape(found["embeddings"]) == (3, 256)
