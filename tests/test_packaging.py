"""The wheel and the sdist: what is in them, and that the command works from a wheel in any folder."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import skillfactory

ROOT = Path(__file__).parents[1]
ONLY_WITH_AN_EXTRA = ("openai", "ray", "peft", "vllm", "verl", "deepspeed", "reasoning_gym", "wandb", "tensorboard")


def build(source: Path, out: Path, *kinds: str) -> list[Path]:
    command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of this checkout, and the wheel made from that sdist, as pip would make it."""
    out = tmp_path_factory.mktemp("built")
    wheel, sdist = sorted(build(ROOT, out), key=lambda path: path.suffix, reverse=True)
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with the wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install", "-q", "--no-deps"]
    subprocess.run([*install, str(built[0])], check=True, capture_output=True)
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # comes after the wheel's own files
    return folder / "bin"


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_package_its_data_and_nothing_else(built: tuple[Path, Path]) -> None:
    there = files_of(built[0])
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "skillfactory").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    recipes = {f"skillfactory/shipped_{path.relative_to(ROOT)}" for path in (ROOT / "recipes").rglob("*.yaml")}
    experiments = {f"skillfactory/shipped_{path.relative_to(ROOT)}" for path in (ROOT / "experiments").glob("*.yaml")}
    assert {"skillfactory/py.typed", "skillfactory/tiny/model/model.safetensors"} <= ours
    rest = {name for name in there - ours - recipes - experiments if ".dist-info/" not in name}
    assert (ours | recipes | experiments) - there == set()
    assert rest <= {"skillfactory/COMMIT", "skillfactory/constraints.txt"}
    assert built[0].stat().st_size < 10_000_000


def test_the_sdist_gives_the_same_wheel_and_can_be_tested(built: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    there = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    for name in ("Makefile", "constraints.txt", "README.md", "LICENSE", "CHANGELOG.md", "tests/test_packaging.py"):
        assert name in there
    assert not [name for name in there if name.startswith(("runs/", ".venv", "dist/")) or name.endswith(".pyc")]
    (wheel,) = build(source, tmp_path / "again", "--wheel")
    assert files_of(wheel) == files_of(built[0])


def test_the_base_installation_has_no_gpu_library_and_no_dependency_without_a_lower_bound(
    built: tuple[Path, Path],
) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("METADATA")]
        about = Parser().parsestr(archive.read(name).decode())
    needs = [Requirement(each) for each in about.get_all("Requires-Dist", [])]
    base = [each for each in needs if not each.marker or "extra" not in str(each.marker)]
    assert {each.name for each in base} & {"vllm", "deepspeed", "bitsandbytes", "flash-attn", "ray", "verl"} == set()
    assert [str(each) for each in base if not any(s.operator in (">=", "==", "~=") for s in each.specifier)] == []
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in about.get_all("Classifier", [])


def test_the_command_works_from_a_wheel_in_any_folder(installed: Path, tmp_path: Path) -> None:
    def said(*args: str) -> str:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run([*args], cwd=tmp_path, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = said(str(installed / "python"), "-c", "import skillfactory; print(skillfactory.__file__)")
    assert Path(where.strip()).is_relative_to(installed.parent)
    version = said(str(installed / "skillfactory"), "--version").strip()
    assert version.startswith(f"skillfactory {skillfactory.__version__}")
    if (ROOT / ".git").exists():
        assert version.endswith(")")  # the commit that it was built from
    assert "countdown-qwen2.5-1.5b" in said(str(installed / "skillfactory"), "recipes")
    said(str(installed / "skillfactory"), "run", "demo", "--until", "questions", "questions.sft=4", "questions.rl=4")
    assert (tmp_path / "runs/demo/questions/manifest.json").exists()


@pytest.mark.slow
def test_the_demo_runs_from_a_wheel_in_any_folder(installed: Path, tmp_path: Path) -> None:
    subprocess.run([str(installed / "skillfactory"), "demo", "--small"], cwd=tmp_path, check=True)
    assert (tmp_path / "runs/demo-small/comparison.html").exists()


def test_all_modules_but_those_of_an_extra_load_without_any_extra(tmp_path: Path) -> None:
    code = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({ONLY_WITH_AN_EXTRA!r}))
import skillfactory
lost = []
for each in pkgutil.walk_packages(skillfactory.__path__, "skillfactory."):
    if each.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(each.name)
    except ModuleNotFoundError as error:
        lost.append(f"{{each.name}} needs {{error.name}}")
print("\\n".join(lost))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # What runs in the workers of reasoning-gym alone.
    assert done.stdout.split("\n")[:-1] == ["skillfactory.tasks.reasoning_gym_scoring needs reasoning_gym"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ru", ["run"]),
        ("run demo", ["demo", "demo-forcing"]),
        ("run m", ["mine/", "my.yaml"]),
        ("run mine/", ["mine/other.yaml"]),
        ("run nowhere/", []),
        ("run demo --until tr", ["traces"]),
        ("tasks letter", ["letter_countdown"]),
        ("experiment sft", ["sft-tiny"]),
    ],
)
def test_the_shell_completes_names(line: str, offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("my.yaml", "mine/other.yaml", "my.txt"):
        (tmp_path / name).touch()
    words = line.split(" ")
    asked = {
        "_SKILLFACTORY_COMPLETE": "complete_bash",
        "COMP_WORDS": f"skillfactory {line}",
        "COMP_CWORD": str(len(words)),
    }
    command = [str(Path(sys.executable).parent / "skillfactory")]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, cwd=tmp_path)
    assert sorted(done.stdout.split()) == offered
