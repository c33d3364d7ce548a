from pathlib import Path

import pytest

from greensv.errors import DataError
from greensv.speaker.scoring.speaker_names import read_speakers, speakers_of_names


@pytest.mark.parametrize(
    "names",
    [
        ("id10270/5r0dWxy17C8/00001.wav", "id10001/zELwAz2W6hM/00009.wav", "id10270/x6uYqmx31kE/00001.wav"),
        ("id10270_5r0dWxy17C8_00001", "id10001_zELwAz2W6hM_00009", "id10270_x6uYqmx31kE_00001"),
        ("id00802-enroll", "test/id00800-singing-01-005.wav", "test/id00802-play-01-001.wav"),
    ],
)
def test_names_of_voxceleb_kiwano_and_cnceleb_tell_their_speaker(names: tuple[str, ...]) -> None:
    found = speakers_of_names(names)
    assert found is not None
    assert found.tolist() == [1, 0, 1]


def test_other_names_do_not() -> None:
    assert speakers_of_names(("id10270/a/1.wav", "anna/1.wav")) is None
    assert speakers_of_names(("guid12345/1.wav",)) is None
    assert speakers_of_names(("id123456/1.wav",)) is None


def test_speakers_are_read_from_utt2spk(tmp_path: Path) -> None:
    path = tmp_path / "utt2spk"
    path.write_text("a x\nb y\n\nc x\nother z\n")
    assert read_speakers(path, ("c", "b", "a")).tolist() == [0, 1, 0]
    with pytest.raises(DataError, match=r"tells no speaker of 1 of 2 utterances \(d\)"):
        read_speakers(path, ("a", "d"))
    path.write_text("a x\na y\n")
    with pytest.raises(DataError, match=r"utt2spk:2: .*'a' has two speakers, 'x' and 'y'"):
        read_speakers(path, ("a",))
    path.write_text("a x y\n")
    with pytest.raises(DataError, match="utt2spk:1: found 'a x y'"):
        read_speakers(path, ("a",))


def test_audio_files_are_found_by_the_wav_scp_beside_utt2spk(tmp_path: Path) -> None:
    (tmp_path / "utt2spk").write_text("a x\nb y\n")
    (tmp_path / "wav.scp").write_text("a audio/x/a 1.opus\nb\taudio/y/b.opus\nc audio/z/c.opus\n")
    found = read_speakers(tmp_path / "utt2spk", ("audio/y/b.opus", "a", "audio/x/a 1.opus"))
    assert found.tolist() == [1, 0, 0]
    with pytest.raises(DataError, match=r"tells no speaker of 1 of 2 utterances \(audio/z/c\.opus\)"):
        read_speakers(tmp_path / "utt2spk", ("a", "audio/z/c.opus"))
