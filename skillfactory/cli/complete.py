"""What the shell offers on Tab: names of recipes, experiments and tasks, and files."""

from pathlib import Path


def recipe(incomplete: str) -> list[str]:
    """Shipped recipes by name, YAML files and folders."""
    return _shipped("recipe", incomplete)


def experiment(incomplete: str) -> list[str]:
    """The same for experiments."""
    return _shipped("experiment", incomplete)


def task(incomplete: str) -> list[str]:
    """Tasks by name, without the many of reasoning-gym."""
    from skillfactory.catalog import tasks_in_brief

    return [name for each in tasks_in_brief() if (name := str(each["name"])).startswith(incomplete)]


def stage(incomplete: str) -> list[str]:
    """Stages by name."""
    from skillfactory.pipeline import STAGES

    return [name for name in STAGES if name.startswith(incomplete)]


def _shipped(kind: str, incomplete: str) -> list[str]:
    from skillfactory.recipes import shipped

    name = [name for name in shipped(kind) if name.startswith(incomplete)]
    folder, _, start = incomplete.rpartition("/")
    here = Path(f"{folder}/" if incomplete.count("/") else ".")
    there = sorted(path for path in here.iterdir() if path.name.startswith(start)) if here.is_dir() else []
    files = [str(path) for path in there if path.suffix in (".yaml", ".yml")]
    return name + files + [f"{path}/" for path in there if path.is_dir() and not path.name.startswith(".")]
