"""What a folder of runs names is not imported because it is named: only what was planned, from outside."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from benchmark.api.trained_model import load_model
from benchmark.errors import UserError
from benchmark.launch import driver
from benchmark.plan.spec import load_method, read_spec
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import RunFolder, State, scan, view
from benchmark.registry import file_digest
from benchmark.robustness.evaluator import Evaluator
from benchmark.train.attempt import Attempt
from benchmark.train.execute import execute

METHOD = """
from benchmark.method import Method, Reference
from benchmark.model import concat_net

class Mine(Method):
    reference = Reference("test")

    def build_net(self, task):
        return concat_net(task)
"""
EVIL = "from pathlib import Path\nPath({mark!r}).touch()\n" + METHOD


def spec_of(method, blobs):
    return plan(Sweep([method], [blobs], [0], recipe={"epochs": 1, "batch_size": 16})).runs[0]


def rewrite(folder, **method):
    """Change what a spec.yaml says of its method."""
    path = folder.path / "spec.yaml"
    content = yaml.safe_load(path.read_text())
    content["method"] |= method
    path.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, blobs):
    """The output folder of a finished run of a plugin of the user's."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mine.py").write_text(METHOD)
    assert execute(spec_of(str(folder / "mine.py"), blobs), Attempt(folder / "runs")) is State.DONE
    return folder


@pytest.fixture
def done(trained, tmp_path):
    """A finished run whose plugin file is not in the folder of runs, for one test alone."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (run,) = scan(tmp_path / "runs")
    rewrite(run.folder, source=str(tmp_path / "mine.py"))
    return run.folder


def evaluate(folder):
    Evaluator(None, torch.device("cpu")).evaluate(folder)


def retry(folder):
    driver.retry([view(folder)], {"out": folder.path.parents[3], "on": "inline"})


def load(folder):
    load_model(folder.path)


@pytest.mark.parametrize("use", [evaluate, retry, load])
@pytest.mark.parametrize("place", ["in the folder of runs", "elsewhere", "a module"])
def test_a_file_that_a_spec_names_is_not_imported_before_it_is_compared(done, tmp_path, use, place, monkeypatch):
    mark = tmp_path / "ran"
    evil = (done.path if place == "in the folder of runs" else tmp_path) / "evil.py"
    evil.write_text(EVIL.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    own = file_digest(evil)  # whoever writes a spec can write its digests too
    changes = {
        "in the folder of runs": {"source": str(evil), "code": own, "file": own},
        "elsewhere": {"source": str(evil)},
        "a module": {"source": "evil"},
    }
    rewrite(done, **changes[place])
    with pytest.raises(UserError, match=r"evil|the code that the run was planned with"):
        use(done)
    assert not mark.exists()
    assert "evil" not in sys.modules


def test_a_plugin_file_in_the_folder_of_runs_is_used_when_that_is_asked_for(done):
    own = done.path / "mine.py"
    own.write_text(METHOD)
    rewrite(done, source=str(own))
    with pytest.raises(UserError, match="--trust"):
        evaluate(done)
    Evaluator(None, torch.device("cpu"), trust=True).evaluate(done)
    assert load_model(done.path, trust=True).task.num_classes


def test_a_plugin_file_of_the_users_is_used_and_an_edit_of_it_is_told_before_it_is_imported(done, tmp_path):
    evaluate(done)
    path = tmp_path / "mine.py"
    path.write_text(path.read_text() + "\n# a comment changes nothing\n")
    load_method(read_spec(done))
    path.write_text(path.read_text() + "raise SystemExit('imported')\n")
    with pytest.raises(UserError, match="other code"):
        load_method(read_spec(done))


def test_where_a_plugin_file_is_does_not_change_the_id_of_a_run(plugin, blobs, tmp_path):
    first = spec_of(plugin("mine", METHOD), blobs)
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "mine.py", tmp_path / "other" / "mine.py")
    assert spec_of(str(tmp_path / "other" / "mine.py"), blobs).id == first.id
    assert first.method.file == file_digest(tmp_path / "mine.py") == first.method.code


def test_names_of_folders_do_not_hide_that_a_file_is_among_the_runs(done):
    """A run can be put deeper, under names that look like another output folder inside."""
    spec = read_spec(done)
    out = done.path.parents[3]
    name = spec.method.name
    deep = out / spec.dataset.name / name / name / done.path.name
    shutil.move(done.path, deep)
    evil = out / "evil.py"
    evil.write_text(METHOD)
    rewrite(RunFolder(deep), source=str(evil), code=file_digest(evil), file=file_digest(evil))
    with pytest.raises(UserError, match="outside the folder of runs"):
        evaluate(RunFolder(deep))
    assert Path(out).is_dir()
