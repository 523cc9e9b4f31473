"""The command on a run's page plans exactly that run: the command line is asked, and the digests must agree."""

from __future__ import annotations

import json
import shlex

import pytest
from typer.testing import CliRunner

from benchmark.cli import app
from benchmark.plan.sweep import Sweep, plan
from benchmark.reproduce import reproduce
from benchmark.site.command import typed

OTHER = """
from benchmark.check.synthetic import Blobs
from benchmark.methods.concat import Concat

class Mine(Concat):
    class Config(Concat.Config):
        weight: float = 0.5
        name: str = "a word"

class MyData(Blobs):
    recipe = {"epochs": 9, "optimizer": {"lr": 0.3}, "schedule": {"kind": "steps", "every": 2}}
"""

PROTOCOL = """
name: my own
about: made for a test
recipe: {epochs: 4, batch_size: 8, optimizer: {kind: adam, lr: 0.1}, selection: last}
"""


def planned(words, tmp_path):
    """Return the id of the only run that a command line plans."""
    done = CliRunner().invoke(app, [*words, "--dry-run", "--json", "--out", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    (run,) = json.loads(done.stdout[done.stdout.index("{") :])["runs"]
    return run["folder"].rpartition("-")[2]


@pytest.mark.parametrize(
    "sweep",
    [
        {},
        {"seeds": [7], "recipe": {"epochs": 3, "precision": "bf16"}},
        {"methods": ["ogm[alpha=0.3]"], "protocol": "aug2025"},
        {"methods": ["aug[losses=[residual,overall]]"], "protocol": "ogm2022", "recipe": {"batch_size": 16}},
        {"methods": ['aug[classifiers={"audio": 3}]'], "settings": ["protocol.optimizer.lr=0.5"]},
        {"settings": ['protocol.optimizer={"kind": "adam", "lr": 0.01}']},
        {"datasets": ["dialpad[snr=-3]"], "settings": ["protocol.selection=last", "protocol.drop_last=true"]},
        {"methods": ["unimodal[modality=image]"], "protocol": "aug2025", "recipe": {"epochs": 200}},
    ],
)
def test_the_command_plans_the_same_run(sweep, tmp_path):
    asked = {"methods": ["concat"], "datasets": ["dialpad"], "seeds": [0], **sweep}
    (spec,) = plan(Sweep(**asked)).runs
    lines, remark = reproduce(spec.model_dump(mode="json"))
    assert not remark
    command, *words = shlex.split(" ".join(lines))
    assert command == "bench"
    assert planned(words, tmp_path) == spec.id


def test_plugins_from_files_are_given_by_their_path(tmp_path):
    path = tmp_path / "my plugins.py"
    path.write_text(OTHER)
    methods, datasets = [f"{path}:Mine[weight=0.25]"], [f"{path}:MyData"]
    (spec,) = plan(Sweep(methods, datasets, [0], settings=["protocol.optimizer.lr=0.01"])).runs
    lines, _ = reproduce(spec.model_dump(mode="json"))
    _, *words = shlex.split(" ".join(lines))
    assert planned(words, tmp_path) == spec.id


def test_a_data_set_setting_that_a_protocol_changes_is_spelled_out_where_the_run_had_another():
    recipe = {"epochs": 100, "batch_size": 64, "optimizer": {"kind": "sgd", "lr": 0.01}}
    plugin = {"name": "cremad", "label": "cremad", "source": "", "attribute": "", "config": {"seconds": 3.0}}
    spec = {"method": {**plugin, "label": "aug"}, "dataset": plugin, "recipe": recipe, "seed": 0, "protocol": "aug2025"}
    words = shlex.split(" ".join(reproduce(spec)[0]))
    assert "cremad.seconds=3.0" in words


def test_a_protocol_from_a_file_is_asked_for_and_its_recipe_spelled_out(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(PROTOCOL)
    (spec,) = plan(Sweep(["concat"], ["dialpad"], [0], protocol=str(path))).runs
    lines, remark = reproduce(spec.model_dump(mode="json"))
    assert "my own.yaml" in remark
    _, *words = shlex.split(" ".join(lines))
    assert planned([str(path) if word == "my own.yaml" else word for word in words], tmp_path) == spec.id


def test_a_command_from_a_hostile_spec_stays_one_command():
    text = "x; rm -rf $(pwd) `id` 'q' \"d\"\n"
    plugin = {"name": text, "label": text, "source": "", "attribute": "", "config": {}}
    spec = {"method": plugin, "dataset": plugin, "recipe": {"epochs": text, text: 1}, "seed": text, "protocol": text}
    words = shlex.split(" ".join(reproduce(spec)[0]))
    assert words[:2] == ["bench", "run"]
    assert dict(zip(words[2::2], words[3::2], strict=True)) == {
        "--methods": text, "--datasets": text, "--seeds": text, "--protocol": f"{text}.yaml", "--epochs": text,
        "--set": f"protocol.{text}=1",
    }  # fmt: skip


def test_what_was_typed_is_shown_as_a_shell_would_take_it():
    assert typed({"argv": ["/opt/venv/bin/bench", "run", "my file.yaml", "--set", "a.b=$x"]}) == (
        "bench run 'my file.yaml' --set 'a.b=$x'"
    )
    assert [typed(damaged) for damaged in (None, [], {"argv": 7}, {"argv": []})] == [""] * 4
