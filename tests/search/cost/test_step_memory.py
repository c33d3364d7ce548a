from dataclasses import replace
from pathlib import Path

import pytest
import torch

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.search.cost.fitting import reckoned_bytes, refusal
from greensv.search.cost.memory import (
    BASE_BYTES,
    DeviceMemory,
    MemoryModel,
    StepSize,
    free_host_bytes,
    longest_phase,
    step_bytes,
)
from greensv.search.cost.work import Work
from greensv.search.workbench import NetworkWork

SIZE = StepSize(num_parameters=1_000_000, kept_values=2e7, num_crops=32, num_loaded=32, num_classes=1000, crop_s=2.0)


def test_the_memory_of_a_step_is_added_up_by_hand():
    # Weights, gradients and momentum in fp32; kept values and half as much again; six values for each class; the
    # waveforms twice.
    expected = BASE_BYTES + 3 * 4e6 + 32 * (1.5 * 4 * 2e7 + 6 * 4 * 1000) + 2 * 4 * 32 * 32_000
    assert step_bytes(SIZE, Recipe(), precision="fp32") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("recipe", "copies"),
    [
        (Recipe(momentum=0.0), 2),
        (Recipe(optimizer="adamw"), 4),
        (Recipe(phases=(Phase(num_averaged_epochs=3),)), 4),
    ],
)
def test_what_the_optimiser_remembers_and_an_average_are_counted(recipe: Recipe, copies: int):
    with_parameters = step_bytes(SIZE, recipe, precision="fp32")
    without = step_bytes(replace(SIZE, num_parameters=0), recipe, precision="fp32")
    assert with_parameters - without == pytest.approx(copies * 4e6)


def test_half_precision_keeps_about_half():
    half, full = (step_bytes(SIZE, Recipe(), precision=precision) - BASE_BYTES for precision in ("bf16", "fp32"))
    assert 0.5 < half / full < 0.6


def test_micro_batches_and_processes_need_less():
    work = NetworkWork(
        num_parameters=10_000, macs=0, embedding_dim=64, per_second=Work(macs=1e9, activations=1e7, num_layers=20)
    )

    def needed(**changes: int) -> float:
        processes = changes.pop("num_processes", 1)
        recipe = Recipe(batch_size=64, phases=(Phase(crop_s=2.0),), **changes)
        return (
            reckoned_bytes(
                work,
                recipe=recipe,
                features=FeatureConfig(),
                num_speakers=10,
                precision="fp32",
                num_processes=processes,
            )
            - BASE_BYTES
        )

    assert needed(num_micro_batches=4) / needed() == pytest.approx(0.25, rel=0.02)
    assert needed(num_processes=2) / needed() == pytest.approx(0.5, rel=0.02)


def test_the_longest_crops_decide():
    recipe = Recipe(phases=(Phase(name="short", crop_s=2.0), Phase(name="long", crop_s=6.0)))
    assert longest_phase(recipe).name == "long"


def test_measured_peaks_correct_what_is_reckoned():
    model = MemoryModel()
    assert model.needed_bytes(100.0) == pytest.approx(125.0)
    for _ in range(30):
        model.add(100.0, 200.0)
    assert model.needed_bytes(100.0) == pytest.approx(200.0 * 1.1, rel=0.05)
    model.add(100.0, 300.0)
    # As far above as the farthest was.
    assert model.needed_bytes(100.0) >= 295.0


def _proc(folder: Path, *, available_kb: int, resident_pages: int) -> Path:
    (folder / "self").mkdir(parents=True, exist_ok=True)
    (folder / "self" / "statm").write_text(f"99999 {resident_pages} 0 0 0 0 0\n")
    (folder / "self" / "status").write_text("")
    (folder / "self" / "cgroup").write_text("")
    (folder / "meminfo").write_text(f"MemTotal: 16000000 kB\nMemFree: 1 kB\nMemAvailable: {available_kb} kB\n")
    return folder


def test_what_a_process_keeps_from_earlier_trainings_is_free_for_the_next(tmp_path: Path):
    memory = DeviceMemory(torch.device("cpu"), proc=_proc(tmp_path, available_kb=1_000_000, resident_pages=10_000))
    assert memory.available_bytes() == pytest.approx(1_000_000 * 1024)
    _proc(tmp_path, available_kb=400_000, resident_pages=110_000)
    assert memory.available_bytes() == pytest.approx(400_000 * 1024 + 100_000 * 4096)


def test_a_system_that_tells_nothing_refuses_nobody(tmp_path: Path):
    assert free_host_bytes(tmp_path) is None
    assert DeviceMemory(torch.device("cpu"), proc=tmp_path).available_bytes() is None


def test_a_real_step_keeps_what_was_counted_without_computing():
    from greensv.builtin.backbones.x_vector import XVector
    from greensv.search.workbench import network_work
    from greensv.speaker.space import lowest

    backbone, features = XVector(), FeatureConfig()
    params = lowest(backbone.space())
    work = network_work(backbone, params, features=features)
    network = backbone.build(params, features=features).train()
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.randn(4, 200, features.num_features), None)
    num_kept = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 4 / 4
    assert num_kept == pytest.approx(work.per_second.activations * 2.0, rel=0.05)


def test_what_does_not_fit_is_refused_with_figures():
    assert refusal(needed_bytes=5e9, available_bytes=5e9) is None
    assert refusal(needed_bytes=5e9, available_bytes=None) is None
    assert refusal(needed_bytes=5.01e9, available_bytes=4e9) == (
        "its training needs about 5.01 GB of memory, 4 GB are free; more recipe.num_micro_batches need less"
    )
