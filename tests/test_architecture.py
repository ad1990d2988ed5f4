"""The picture of the layers is what the imports give, and says no arrow twice."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    import make_architecture

    return make_architecture


def test_the_picture_is_what_the_imports_give() -> None:
    words = [sys.executable, str(DOCS / "make_architecture.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_picture_is_found_out(
    drawing: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drawing, "imports", lambda: {"a": {"b"}, "b": set(), "basics": set()})
    monkeypatch.setattr(drawing, "BOXES", dict.fromkeys(("a", "b", "basics"), ("", ())))
    monkeypatch.setattr(drawing, "PICTURE", tmp_path / "picture.svg")
    assert drawing.main([]) == 0
    assert drawing.main(["--check"]) == 0
    monkeypatch.setattr(drawing, "imports", lambda: {"a": set(), "b": set(), "basics": set()})
    assert drawing.main(["--check"]) == 1
    assert "is not what the imports give; run `python docs/make_architecture.py`" in capsys.readouterr().err


def test_layers_and_arrows(drawing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "BOXES", dict.fromkeys(("a", "b", "c", "basics"), ("", ())))
    rows, shown, up = drawing.layers({"a": {"b", "c", "basics"}, "b": {"c"}, "c": {"a", "basics"}, "basics": set()})
    assert [[node.name for node in row] for row in rows] == [["a"], ["b"], ["c"], ["basics"]]
    assert shown == [("a", "b"), ("b", "c")], "a to c goes over b, and basics has no arrows"
    assert up == [("c", "a")]


def test_every_module_has_a_box(drawing: ModuleType) -> None:
    found = drawing.imports()
    assert "training" in found["pipeline"]
    assert drawing.BASICS in found["recipe"] | found["store"]
    assert drawing.box_of("skillfactory.tiny", {"skillfactory.tiny", "skillfactory.tiny.world"}) == "engines"
    assert drawing.box_of("skillfactory.tiny.world", {"skillfactory.tiny.world"}) == "tiny"
    assert drawing.box_of("skillfactory.of_nobody", {"skillfactory.of_nobody"}) == ""
