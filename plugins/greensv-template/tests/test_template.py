"""The contract that every backbone keeps, and what this plugin adds to it."""

import logging

import pytest
import torch

import greensv_template
from greensv.config import FeatureConfig
from greensv.plugins import load_plugins, plugins_from
from greensv.testing.backbone_contract import BackboneContract
from greensv_template.backbone import MeanPooling


class TestMeanPooling(BackboneContract):
    backbone = MeanPooling()


def test_greensv_finds_the_plugin_by_its_entry_point():
    component = load_plugins().component("backbone", "mean-pooling")
    assert component.provider.distribution == "greensv-template"
    assert isinstance(component.instance, MeanPooling)


def test_embedding_is_the_layer_applied_to_the_mean_over_valid_frames():
    torch.manual_seed(0)
    network = MeanPooling().build({"width": 8, "embedding_dim": 16}, features=FeatureConfig())
    features = torch.randn(2, 7, 81)
    expected = [
        network.embedding_layer(network.frame_layers(item[:length]).mean(dim=0))
        for item, length in zip(features, (7, 3), strict=True)
    ]
    torch.testing.assert_close(network(features, torch.tensor([7, 3])), torch.stack(expected))


def test_finished_trials_are_logged(caplog: pytest.LogCaptureFixture):
    plugins = plugins_from({"template": greensv_template}, builtins=False)
    assert plugins.problems == ()
    with caplog.at_level(logging.INFO, logger="greensv_template"):
        plugins.notify_trial_finished(study_name="quickstart", trial={"number": 3, "eer": 0.1})
    assert "study quickstart: trial 3 finished" in caplog.text
