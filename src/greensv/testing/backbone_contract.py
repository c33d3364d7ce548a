"""What every backbone must do, as tests. A plugin's own test file subclasses `BackboneContract`, and pytest runs it.

For a backbone `MeanPooling` with one parameter `width`::

    class TestMeanPooling(BackboneContract):
        backbone = MeanPooling()
        narrowing = {"width": [8, 32]}
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from greensv.config import FeatureConfig
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import Params, Space, defaults, highest, lowest, narrow

if TYPE_CHECKING:
    from torch import Tensor, nn

KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class BackboneContract:
    """Subclass it, name the subclass `Test…`, and set `backbone`.

    Networks that run are those of the defaults and both ends of the narrowed space: narrow it until they are small.
    Those of the full space, and the named systems, are built without memory and only counted.
    """

    backbone: ClassVar[Backbone]
    narrowing: ClassVar[Mapping[str, Any]] = {}
    """Narrowing of the space, as in study.toml: a fixed value, `[low, high]`, or a list of options."""
    features: ClassVar[FeatureConfig] = FeatureConfig()

    def test_name_is_kebab_case_and_version_a_count(self) -> None:
        assert KEBAB_CASE.fullmatch(self.backbone.name), f"{self.backbone.name!r} is not kebab-case"
        assert isinstance(self.backbone.version, int), f"version {self.backbone.version!r} is not a whole number"
        assert self.backbone.version >= 1, f"version {self.backbone.version} is less than 1"

    def test_space_holds_its_defaults_and_its_ends(self) -> None:
        space = self.backbone.space()
        assert space, "the space has no parameter"
        for point in (defaults(space), lowest(space), highest(space)):
            for name, parameter in space.items():
                assert name.isidentifier(), f"parameter {name!r} is no plain name"
                assert parameter.problem(point[name]) is None, f"{name}: {parameter.problem(point[name])}"

    def test_space_is_the_same_whenever_it_is_asked_for(self) -> None:
        assert dict(self.backbone.space()) == dict(self.backbone.space())

    def test_named_systems_are_points_of_the_space(self) -> None:
        space = self.backbone.space()
        for system, params in self.backbone.systems().items():
            assert set(params) == set(space), f"{system} does not set exactly the parameters of the space"
            for name, parameter in space.items():
                assert parameter.problem(params[name]) is None, f"{system}: {name}: {parameter.problem(params[name])}"

    def test_every_named_system_and_the_full_space_can_be_counted(self) -> None:
        space = self.backbone.space()
        points = (defaults(space), *self.backbone.ends(space), *self.backbone.systems().values())
        for params in points:
            assert self._num_parameters(params) > 0
            assert isinstance(self.backbone.summary(params), Mapping)

    def test_first_end_costs_no_more_than_the_second(self) -> None:
        for space in (self.backbone.space(), self._narrowed()):
            cheapest, dearest = self.backbone.ends(space)
            assert self._macs(cheapest) <= self._macs(dearest), f"{cheapest} costs more MACs than {dearest}"
            for params in (cheapest, dearest):
                for name, parameter in space.items():
                    assert parameter.problem(params[name]) is None, f"{name}: {parameter.problem(params[name])}"

    def test_networks_return_one_finite_embedding_per_item(self) -> None:
        for params in self._small_points():
            network = self._trained(params)
            features = self._noise(3, 50)
            embeddings = self._embed(network, features, None)
            assert isinstance(network.embedding_dim, int), "the network has no integer attribute embedding_dim"
            assert embeddings.shape == (3, network.embedding_dim), f"shape {tuple(embeddings.shape)}"
            assert bool(embeddings.isfinite().all()), "embeddings are not finite"

    def test_embeddings_do_not_depend_on_padding(self) -> None:
        import torch

        lengths = torch.tensor([61, 50, 33, 24])
        for params in self._small_points():
            network = self._trained(params)
            batch = self._noise(4, 61)
            padded = batch.clone()
            for item, length in enumerate(lengths.tolist()):
                padded[item, length:] = 100.0
            together = self._embed(network, padded, lengths)
            for item, length in enumerate(lengths.tolist()):
                alone = self._embed(network, batch[item : item + 1, :length], None)[0]
                torch.testing.assert_close(together[item], alone, rtol=1e-4, atol=1e-5)

    def test_lengths_of_whole_items_change_nothing(self) -> None:
        import torch

        for params in self._small_points():
            network, batch = self._trained(params), self._noise(2, 40)
            whole = self._embed(network, batch, torch.tensor([40, 40]))
            torch.testing.assert_close(whole, self._embed(network, batch, None), rtol=1e-4, atol=1e-5)

    def test_every_parameter_gets_a_gradient(self) -> None:
        for params in self._small_points():
            network = self._built(params)
            network.train()
            network(self._noise(4, 40), None).square().sum().backward()
            without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
            assert not without, f"no gradient reaches {', '.join(without)}"

    def test_weights_survive_a_round_trip(self) -> None:
        import torch

        for params in self._small_points():
            first = self._trained(params)
            torch.manual_seed(1)
            second = self.backbone.build(params, features=self.features)
            second.load_state_dict(first.state_dict())
            batch = self._noise(2, 40)
            assert torch.equal(self._embed(first, batch, None), self._embed(second, batch, None))

    def test_a_seed_fixes_the_first_weights(self) -> None:
        import torch

        for params in self._small_points():
            first, second = self._built(params).state_dict(), self._built(params).state_dict()
            assert first.keys() == second.keys()
            different = [name for name in first if not torch.equal(first[name], second[name])]
            assert not different, f"differ between two builds from one seed: {', '.join(different)}"

    def _narrowed(self) -> Space:
        space = self.backbone.space()
        return {n: narrow(p, self.narrowing[n]) if n in self.narrowing else p for n, p in space.items()}

    def _small_points(self) -> list[Params]:
        space = self._narrowed()
        points: list[Params] = []
        for point in (defaults(space), *self.backbone.ends(space)):
            if dict(point) not in points:
                points.append(dict(point))
        return points

    def _built(self, params: Params) -> "nn.Module":
        import torch

        torch.manual_seed(0)
        return self.backbone.build(params, features=self.features)

    def _trained(self, params: Params) -> "nn.Module":
        """A network whose statistics and offsets are no longer 0, which would hide what leaks from the padding."""
        import torch

        network = self._built(params)
        network.train()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
            network(self._noise(4, 40), None)
        return network

    def _noise(self, batch: int, num_frames: int) -> "Tensor":
        import torch

        generator = torch.Generator().manual_seed(num_frames)
        return torch.randn(batch, num_frames, self.features.num_features, generator=generator)

    def _embed(self, network: "nn.Module", features: "Tensor", lengths: "Tensor | None") -> "Tensor":
        import torch

        network.eval()
        with torch.no_grad():
            embeddings: Tensor = network(features, lengths)
        return embeddings

    def _num_parameters(self, params: Params) -> int:
        import torch

        from greensv.speaker.complexity import num_parameters

        with torch.device("meta"):
            return num_parameters(self.backbone.build(params, features=self.features))

    def _macs(self, params: Params) -> int:
        import torch

        from greensv.speaker.complexity import count_macs

        with torch.device("meta"):
            network = self.backbone.build(params, features=self.features)
        return count_macs(network, num_features=self.features.num_features)
