"""Nothing that was read is run: no pickle, eval, shell or YAML tag, but for places named here, each with its reason.

Read from the sources, so that a new place has to be named, too.
"""

import ast
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import make_recipe

import skillfactory
from skillfactory.errors import ModelError

ROOT = Path(skillfactory.__file__).parent
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code", "runpy"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "exec_module", "import_module", "system", "popen", "getoutput", "getstatusoutput", "unsafe_load", "full_load",
    "recv", "execv", "execve", "execvp", "spawnv", "read_pickle", "to_pickle", "Popen", "run_path", "run_module",
}  # fmt: skip
OWN = "its own process or program, by a list of words and no shell"
ALLOWED = {
    "children.py: Popen": OWN,
    "experiments/cluster.py: Popen": OWN,
    "tasks/deadline.py: Popen": OWN,
    "training/elsewhere/programs.py: Popen": OWN,
    "training/launch.py: Popen": OWN,
    "tasks/deadline.py: recv": "between a worker and its caller, over a socket pair that no other process has",
    "tasks/deadline.py: import_module": "names that this package gives, and grading functions that the recipe names",
    "tasks/grading.py: import_module": "grading functions that the recipe names",
    "curation/patterns.py: exec_module": "a pattern that the recipe names as a file of the user's",
    "engines/__init__.py: import_module": "names that this package gives",
    "pipeline.py: import_module": "names that this package gives",
    "training/worker.py: import_module": "names that this package gives",
    "engines/ray.py: pickle": "between tasks of one Ray program, as Ray itself does",
}


def found() -> Iterator[tuple[str, int]]:
    """Each place as `file: what`, with its line."""
    for path in sorted(ROOT.rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                for name in names:
                    if name.partition(".")[0] in MODULES:
                        yield f"{where}: {name}", node.lineno
            if not isinstance(node, ast.Call):
                continue
            for what in _called(node):
                yield f"{where}: {what}", node.lineno


def _called(node: ast.Call) -> Iterator[str]:
    """What of a call is to be named."""
    keywords = {each.arg: each.value for each in node.keywords}
    for name in ("shell", "allow_pickle", "trust_remote_code"):
        value = keywords.get(name)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
            yield name
    if (value := keywords.get("weights_only")) is not None and isinstance(value, ast.Constant) and not value.value:
        yield "weights_only"
    if isinstance(node.func, ast.Name) and node.func.id in CALLS | (METHODS - {"system", "recv"}):
        yield node.func.id
    if isinstance(node.func, ast.Attribute):
        of = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        if of == "platform":  # its `system` only tells
            return
        loads = node.func.attr in ("load", "load_all") and of in ("yaml", "torch", "np", "numpy")
        if node.func.attr in METHODS or loads:
            yield node.func.attr


def test_nothing_runs_what_it_reads_but_for_places_named_here() -> None:
    places = list(found())
    unknown = [f"{place} (line {line})" for place, line in places if place not in ALLOWED]
    assert not unknown
    assert {place for place, _ in places} >= set(ALLOWED), "a place that is gone; take it from the list"


def test_the_scan_sees_what_it_should(tmp_path: Path) -> None:
    bad = [
        "eval('1')", "exec('1')", "yaml.load(x, Loader=L)", "torch.load(x)", "np.load(x, allow_pickle=True)",
        "subprocess.run('x', shell=True)", "os.system('x')", "x.from_pretrained(y, trust_remote_code=True)",
        "torch.load(x, weights_only=False)", "subprocess.run('x', shell=flag)",
    ]  # fmt: skip
    for line in bad:
        call = next(node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call))
        assert list(_called(call)), line
    assert not list(_called(ast.parse("model.eval()").body[0].value))  # type: ignore[attr-defined]


class Bomb:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.path, "unpickled")


def test_weights_in_a_pickle_are_refused_and_never_read(random_model: Path, tmp_path: Path) -> None:
    from skillfactory.engines.models import load_model

    folder, trace = tmp_path / "model", tmp_path / "trace"
    shutil.copytree(random_model, folder)
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(ModelError, match="safetensors"):
        load_model(make_recipe(model=str(folder)))
    assert not trace.exists()
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists()  # it would have gone off
