"""A study's page in what is kept of this hardware: it starts from other studies' figures, and adds its own."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from greensv.search.calibration import meter_settings
from greensv.search.cost.model import CostModel, Measured, Prediction
from greensv.search.cost.saved import Hardware, hardware_of, keep_costs, load_costs, recipe_digest, saved_cost, teach

if TYPE_CHECKING:
    from greensv.search.workbench import Workbench


@dataclass(frozen=True, slots=True, kw_only=True)
class CostNotebook:
    """Where a worker reads and writes."""

    hardware: Hardware
    recipe: str
    """As `recipe_digest` tells it."""
    study_id: str
    pue: float

    @classmethod
    def of(cls, bench: "Workbench") -> Self:
        """Returns the notebook of a workbench's study, device and meters; reads nothing yet."""
        import torch

        from greensv.search.workbench import environment

        config, metering = bench.config, bench.metering
        about = environment(config, metering.domains(), bench.crew)
        return cls(
            hardware=hardware_of(about, num_threads=torch.get_num_threads(), settings=meter_settings(metering.choices)),
            recipe=recipe_digest(
                config.recipe,
                config.recipe.phases[0],
                config.features,
                num_classes=bench.corpus.train.num_speakers,
            ),
            study_id=metering.study_id,
            pue=config.energy.pue,
        )

    def teach(self, model: CostModel) -> int:
        """Lets a model start from what other studies measured on this hardware; returns how much that is."""
        return teach(model, load_costs(self.hardware), recipe=self.recipe, group=self.study_id, pue=self.pue)

    def keep(
        self, measured: Measured, *, num_steps: int, predicted: Prediction | None = None, speech_s: float = 1.0
    ) -> None:
        """Keeps a measurement for later studies. What cannot be kept is a note in the log.

        Args:
            measured: PUE included.
            num_steps: that were measured.
            predicted: what had been predicted before it was measured, for `speech_s` seconds of training speech; None:
                nothing had.
            speech_s: of the prediction.
        """
        point = saved_cost(
            measured,
            predicted=predicted,
            speech_s=speech_s,
            pue=self.pue,
            recipe=self.recipe,
            group=self.study_id,
            num_steps=num_steps,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        keep_costs(self.hardware, [point])
