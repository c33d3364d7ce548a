"""The disturbances of the paper's recipe over a folder of noise and one of room impulse responses."""

from pathlib import Path

from greensv.config import Augmentation, Disturbance


def augmentation(files: Path) -> Augmentation:
    """Returns Kiwano's probabilities and ratios: four crops of five are disturbed."""
    noise = [Disturbance(kind="noise", probability=0.2, snr_db=snr) for snr in ((5.0, 15.0), (13.0, 20.0), (0.0, 15.0))]
    return Augmentation(
        noise_root=str(files / "noise"),
        rir_root=str(files / "rir"),
        disturbances=(*noise, Disturbance(kind="reverb", probability=0.2)),
    )
