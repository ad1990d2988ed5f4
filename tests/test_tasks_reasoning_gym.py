"""Tasks of reasoning-gym: its generators and scorers, with what we ask besides."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillfactory import tasks
from skillfactory.errors import QuestionError
from skillfactory.records import Grade, Question
from skillfactory.tasks import deadline, reasoning_gym
from skillfactory.tasks.base import home
from skillfactory.tasks.reasoning_gym import EVALUATES, is_safe, packed, unpacked

scoring = pytest.importorskip("skillfactory.tasks.reasoning_gym_scoring")
SLOW = ("futoshiki", "knight_swap", "sokoban", "zebra_puzzles", "intermediate_integration", "puzzle24")  # to generate
_EVALUATES_ANSWER = re.compile(r"\b(?:eval|exec|parse_expr|sympify|S)\((?:str\()?(?:user_)?answer")
WITHOUT_REFERENCES = ("boxnet", "rush_hour")


def entries(member: str, n: int, seed: int = 5) -> list[dict[str, Any]]:
    """Entries of the library as `make` takes them."""
    with scoring._quiet():
        dataset = scoring._create(member, {"seed": seed, "size": n})
        return [kept for i in range(n) if (kept := scoring._checked(member, dataset, dataset[i]))]


def question(member: str) -> tuple[Any, Question]:
    task = tasks.get(f"reasoning_gym:{member}")
    return task, task.make(**entries(member, 6)[0])


def verdict(member: str, made: Question, answer: str) -> str:
    return str(scoring.verdict(member, made.text, made.answer, made.data, answer))


def test_the_names_are_those_of_the_library() -> None:
    from reasoning_gym.factory import DATASETS

    assert reasoning_gym.names() == sorted(set(DATASETS) - {"composite"})


@pytest.mark.parametrize("member", sorted(set(reasoning_gym.names()) - {*SLOW, *WITHOUT_REFERENCES}))
def test_references_pass_and_junk_does_not(member: str) -> None:
    """Also after the way to disk and back, by another instance of the scorer."""
    task = tasks.get(f"reasoning_gym:{member}")
    found = entries(member, 3)
    assert found
    for entry in found:
        made = task.make(**entry)
        reference = scoring.extract_answer(f"<answer>{made.answer}</answer>")
        assert verdict(member, made, reference) == "correct"
        for junk in ("NaN", "-", "junk", "1e999", "(((", "[]", "{}", "[null]"):
            assert member in EVALUATES or verdict(member, made, junk) in ("", "unreadable")


@pytest.mark.parametrize("member", sorted(EVALUATES))
def test_references_are_safe_text(member: str) -> None:
    with scoring._quiet():
        dataset = scoring._create(member, {"seed": 3, "size": 10})
        references = [dataset[i]["answer"] for i in range(10)]
    solved = [each for each in references if "Integral" not in each]  # sympy gave up: no question to ask
    assert len(solved) > 5
    assert all(map(is_safe, solved)), solved


def test_the_list_of_scorers_that_evaluate_is_complete() -> None:
    """By their sources: a new release may add one."""
    from reasoning_gym.factory import DATASETS

    found = set()
    for name, (kind, _) in DATASETS.items():
        lines = Path(sys.modules[kind.__module__].__file__ or "").read_text("utf-8").splitlines()
        given = [line for line in lines if _EVALUATES_ANSWER.search(line)]
        found |= {name} if given else set()
    assert found == EVALUATES


ESCAPES = [
    "__import__('os').system('touch {path}')", '__import__("os").system("touch {path}")', "open('{path}', 'w')",
    "().__class__.__base__.__subclasses__()", "[].__class__", "lambda: 1", "(lambda: 1)()", "(exit)(0)", "exit (0)",
    "sin(exit)", "exec('1')", "x.name", "C.__class__", "x(1)", "2(3)", "sin(x)(1)", "f'{{1}}'", "[exit][0]", "x; y",
    "x if x else y", "x @ y", "x := 1", "Symbol('x')", "sympify(x)", "print", "breakpoint", "__name__", "_ __",
    "1 and x", "Integral(x, x)",
]  # fmt: skip


@pytest.mark.parametrize("escape", ESCAPES)
def test_escapes_are_not_read(escape: str, tmp_path: Path) -> None:
    text = escape.format(path=tmp_path / "touched")
    assert not is_safe(text)
    task, made = question("simple_integration")
    assert task.grade(made, f"<answer>{text}</answer>").outcome == "wrong"
    assert not (tmp_path / "touched").exists()


@settings(max_examples=300)
@given(st.text(max_size=30) | st.text(alphabet="xe_()[].'\"+*-/0 ", max_size=30))
def test_safe_text_calls_only_functions_of_mathematics(text: str) -> None:
    import ast

    if not is_safe(text):
        return
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Attribute | ast.Lambda | ast.Subscript | ast.JoinedStr | ast.NamedExpr)
        if isinstance(node, ast.Call):
            assert isinstance(node.func, ast.Name)
            assert node.func.id in reasoning_gym._FUNCTIONS.split("|")


@pytest.mark.parametrize("answer", ["x**2/2 + C", "-3*cos(4*x - 5)**4/4 + C", "exp(x)*(x - 1) + C", "3*(10 + 7 - 9)"])
def test_plain_expressions_are_safe(answer: str) -> None:
    assert is_safe(answer)


def test_grades_through_worker_processes() -> None:
    task, made = question("simple_integration")
    assert task.grade(made, f"<answer>{made.answer}</answer>") == Grade("correct", made.answer)
    same = made.answer.removesuffix(" + C") + " + 7"  # another constant
    assert task.grade(made, f"<answer>{same}</answer>").outcome == "correct"
    assert task.grade(made, "<answer>x + C</answer>") == Grade("wrong", "x + C")
    assert task.grade(made, "no answer").outcome == "no_answer"


def test_a_check_that_hangs_or_breaks_is_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    task, made = question("simple_integration")
    monkeypatch.setattr(reasoning_gym, "SCORE_SECONDS", 1.0)
    assert task.grade(made, "<answer>9**9**9**9</answer>") == Grade("no_answer", "9**9**9**9", "check_timed_out")
    broken = Question(made.id, made.task, "", made.text, made.answer, "{")
    assert task.grade(broken, "<answer>x</answer>").reason == "check_failed"


@pytest.mark.parametrize(
    ("member", "fooling"),
    [
        ("coin_flip", ["0"]),
        ("complex_arithmetic", ["NaN"]),
        ("countdown", ["{target}", "{answer} * 1**1"]),
        ("game_of_life_halting", ["yes", "0"]),
        ("puzzle24", ["6 * 4 * 1 * 1", "24 + 1 - 1 + 0"]),
    ],
)
def test_what_fools_the_library_does_not_fool_us(member: str, fooling: list[str]) -> None:
    """`puzzle24` takes any four numbers, `game_of_life_halting` any text, and so on; see GUARDS."""
    task = tasks.get(f"reasoning_gym:{member}")
    entry = entries(member, 4)[-1]
    made = task.make(**entry)
    if member == "puzzle24" and sorted(entry["metadata"]["numbers"]) == [1, 1, 4, 6]:
        pytest.skip("these are its numbers")
    for text in fooling:
        answer = text.format(answer=made.answer, **entry["metadata"])
        assert verdict(member, made, answer) != "correct"
    assert verdict(member, made, made.answer) == "correct"


def test_sorted_numbers_must_be_those_given() -> None:
    _, made = question("number_sorting")
    numbers = json.loads(made.answer.replace("'", '"'))
    assert verdict("number_sorting", made, json.dumps([float(n) for n in numbers])) == "correct"
    assert verdict("number_sorting", made, json.dumps([float(n) + 0.5 for n in numbers])) == ""


def test_splits_and_seeds_share_no_items() -> None:
    task = tasks.get("reasoning_gym:chain_sum")
    parts = {split: task.generate(15, seed, split) for seed, split in enumerate(("sft", "rl", "dev", "eval"))}
    for split, found in parts.items():
        assert {home(each.id) for each in found} == {split}
        assert len({each.text for each in found}) == 15
    first, second = task.generate(20, 7), task.generate(20, 8)  # neighbours share nearly all in the library
    assert len({each.id for each in first} & {each.id for each in second}) < 3
    assert task.generate(20, 7) == first
    assert task.generate(30, 7)[:20] == first
    assert tasks.get("reasoning_gym:chain_sum").facts()["library"].startswith("reasoning-gym 0.")


def test_generators_that_depend_on_hashes_give_the_same_in_every_process() -> None:
    code = (
        "from skillfactory import tasks\n"
        "print([q.text for q in tasks.get('reasoning_gym:polynomial_multiplication').generate(3, 1)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    ours = [q.text for q in tasks.get("reasoning_gym:polynomial_multiplication").generate(3, 1)]
    assert done.stdout == f"{ours}\n"


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("chain_sun", {}, r"Unknown task `reasoning_gym:chain_sun`; did you mean `reasoning_gym:chain_sum`\?"),
        ("composite", {}, "`skillfactory tasks reasoning_gym` lists them"),
        ("", {}, "name one, such as `reasoning_gym:chain_sum`"),
        ("chain_sum", {"min_term": 3}, "no parameter `min_term`; did you mean `min_terms`"),
        ("chain_sum", {"seed": 3}, "no parameter `seed`; it takes: min_terms"),
        ("chain_sum", {"min_terms": 30}, "cannot take these parameters: max_terms must be >= min_terms; its defaults"),
        ("chain_sum", {"min_terms": "x"}, "cannot take these parameters"),
    ],
)
def test_mistakes_are_one_sentence(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        tasks.get(f"reasoning_gym:{name}", **params)


def test_a_task_without_references_is_refused() -> None:
    with pytest.raises(QuestionError, match=r"rush_hour: none of its first 100 entries has a reference answer"):
        tasks.get("reasoning_gym:rush_hour").generate(1, 0)


def test_a_missing_library_is_named_with_its_command() -> None:
    code = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'reasoning_gym' else real(name, *a)\n"
        "from skillfactory import tasks\n"
        "print(tasks.reasoning_gym.names())\n"
        "try: tasks.get('reasoning_gym:chain_sum')\n"
        "except tasks.base.QuestionError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[]\n")
    assert "pip install 'skillfactory[reasoning-gym]'" in done.stdout


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.lists(inner).map(tuple)
            | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner)
        ),
        max_leaves=12,
    )
)
def test_metadata_survives_json(value: Any) -> None:
    again = unpacked(json.loads(json.dumps(packed(value))))
    assert again == value
    assert repr(again) == repr(value)


def teardown_module() -> None:
    deadline.close()
