"""espeak-ng through ctypes. The library is one global per process, so greensv calls it in processes of its own.

Its random numbers are seeded per utterance, but flutter and other state carry on from one utterance to the next: what
it says depends on all it said before. The same calls in a fresh process give the same samples.
"""

import ctypes
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greensv.errors import PluginError
from greensv_espeak.voices import Voice, variant_file

# Values of speak_lib.h
_OUTPUT_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_CHARACTERS_UTF8 = 1
_RATE, _PITCH = 1, 3

_VARIANT = "greensv"
# By file name, so that espeak-ng loads it without first listing voices; its list has 350 entries.
_VOICE_NAME = f"gmw/en+{_VARIANT}".encode()
_DATA_FILES = ("phondata", "phonindex", "phontab", "intonations", "en_dict", "lang")
_MAX_PATH_BYTES = 130  # speak_lib's path buffers hold 160 bytes, file names below the data directory included

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Synthesizer:
    """Speaks in one voice at a time. A context manager; at most one may be open in a process.

    Raises:
        PluginError: the library or its data cannot be loaded.
    """

    sample_rate_hz: int

    def __enter__(self) -> "Synthesizer":
        self._folder = tempfile.TemporaryDirectory(prefix="espeak-")
        try:
            self._library, data = _load_library()
            self._libc = ctypes.CDLL(None)
            self._variant_path = _make_data_folder(Path(self._folder.name), data)
            self._chunks: list[NDArray[np.int16]] = []
            self._callback = _Callback(self._receive)
            rate = self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, self._folder.name.encode(), _DO_NOT_EXIT)
            if rate <= 0:
                raise PluginError(f"espeak-ng does not accept its data in {data}; reinstall espeakng-loader")
        except BaseException:
            self._folder.cleanup()
            raise
        self.sample_rate_hz = rate
        self._library.espeak_SetSynthCallback(self._callback)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.espeak_Terminate()
        self._folder.cleanup()

    def set_voice(self, voice: Voice) -> None:
        """Speaks in this voice from now on.

        Raises:
            PluginError: espeak-ng refuses the voice.
        """
        self._variant_path.write_text(variant_file(voice, name=_VARIANT), encoding="ascii")
        if self._library.espeak_SetVoiceByName(_VOICE_NAME):
            raise PluginError(f"espeak-ng refuses the voice {voice}; espeakng-loader may be too old")

    def say(self, text: str, *, seed: int, words_per_minute: int, pitch: int) -> NDArray[np.float32]:
        """Returns the spoken text at `sample_rate_hz`, in [-1, 1].

        Args:
            text: what to say.
            seed: of espeak-ng's random numbers.
            words_per_minute: the rate, before the voice's own speed; 175 is espeak-ng's default.
            pitch: 0 to 100, within the voice's range; 50 is espeak-ng's default.

        Raises:
            PluginError: espeak-ng failed or said nothing.
        """
        self._chunks.clear()
        self._library.espeak_ng_SetRandSeed(seed)
        self._libc.srand(ctypes.c_uint(seed))
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        data = text.encode()
        status = self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _CHARACTERS_UTF8, None, None)
        if status or not self._chunks:
            raise PluginError(f"espeak-ng did not speak {text!r} (status {status}); reinstall espeakng-loader")
        return np.concatenate(self._chunks).astype(np.float32) / np.float32(32_768)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def _load_library() -> tuple[ctypes.CDLL, Path]:
    try:
        import espeakng_loader
    except ImportError as error:
        raise PluginError(f"espeakng-loader is not installed ({error}); install it, it brings espeak-ng") from error
    path = espeakng_loader.get_library_path()
    try:
        library = ctypes.CDLL(path)
        data = Path(espeakng_loader.get_data_path())
    except (OSError, RuntimeError) as error:
        raise PluginError(f"espeak-ng cannot be loaded from {path} ({error}); reinstall espeakng-loader") from error
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
        ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    return library, data


def _make_data_folder(folder: Path, data: Path) -> Path:
    """Fills a data folder with links to espeak-ng's data and returns where its one voice variant is to be written."""
    if len(str(folder).encode()) > _MAX_PATH_BYTES:
        raise PluginError(
            f"the temporary folder {folder} has too long a path for espeak-ng; set TMPDIR to a shorter one"
        )
    own = folder / "espeak-ng-data"
    variants = own / "voices" / "!v"
    variants.mkdir(parents=True)
    for name in _DATA_FILES:
        if not (data / name).exists():
            raise PluginError(f"espeak-ng's data in {data} lacks {name!r}; reinstall espeakng-loader")
        (own / name).symlink_to(data / name)
    return variants / _VARIANT
