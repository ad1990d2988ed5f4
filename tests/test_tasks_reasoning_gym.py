"""Tasks of reasoning-gym: its generators and scorers, with what we ask besides."""

import importlib
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
from skillfactory.tasks.reasoning_gym import packed, unpacked
from skillfactory.tasks.reasoning_gym_safety import EVALUATES, FUNCTIONS, is_safe

pytest.importorskip("reasoning_gym")  # the library alone may be missing: a fault of ours must not skip these tests
scoring = importlib.import_module("skillfactory.tasks.reasoning_gym_scoring")
SLOW = ("futoshiki", "knight_swap", "sokoban", "zebra_puzzles", "intermediate_integration", "puzzle24")  # to generate
_EVALUATES_ANSWER = re.compile(r"\b(?:eval|exec|parse_expr|sympify|S)\((?:str\()?(?:user_)?answer")


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

    assert reasoning_gym.names() == sorted(set(DATASETS) - {"boxnet", "composite", "rush_hour"})


@pytest.mark.parametrize("member", sorted(set(reasoning_gym.names()) - set(SLOW)))
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
            assert node.func.id in FUNCTIONS.split("|")


@pytest.mark.parametrize(
    "answer",
    ["x**2/2 + C", "-3*cos(4*x - 5)**4/4 + C", "exp(x)*(x - 1) + C", "3*(10 + 7 - 9)", "x**64", "x ** -2", "(x**4)**16",
     "2*(4*x + 7)**(3/2) + C", "(2*x**3 + 1)**5", "x**2*(x**3 + x**64)"],
)  # fmt: skip
def test_plain_expressions_are_safe(answer: str) -> None:
    assert is_safe(answer)


@pytest.mark.parametrize(
    "answer",
    ["9**9**9**9", "9**(9**9)", "((9**9)**9)**9", "x**65", "2**100", "2**-65", "9**9**x", "9**x", "9**(x)", "9**(9*9)",
     "sin(x**9)**9", "(x**9/3 + 1)**8", "2**(65/2)", "2**9.5", "2**(1/2)**64", "1e999999999", "1.5e99", "1_0"],
)  # fmt: skip
def test_endless_arithmetic_is_not_computed(answer: str) -> None:
    assert not is_safe(answer)
    task, made = question("simple_integration")
    assert task.grade(made, f"<answer>{answer}</answer>") == Grade("wrong", answer, "unsafe_text")


powers = st.recursive(
    st.integers(0, 999).map(str),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["*", "+", "-"]), inner).map("".join)
        | st.tuples(inner, st.integers(0, 70)).map(lambda pair: f"({pair[0]})**{pair[1]}")
        | st.tuples(inner, st.integers(0, 70)).map(lambda pair: f"{pair[0]}**{pair[1]}")
    ),
    max_leaves=6,
)


@given(powers)
def test_safe_powers_stay_small(text: str) -> None:
    """A number of d digits has at most 3.4 d bits, and no power is above 64."""
    if is_safe(text):
        assert int(eval(text)).bit_length() <= 250 * len(text)


def test_grades_through_worker_processes() -> None:
    task, made = question("simple_integration")
    assert task.grade(made, f"<answer>{made.answer}</answer>") == Grade("correct", made.answer)
    same = made.answer.removesuffix(" + C") + " + 7"  # another constant
    assert task.grade(made, f"<answer>{same}</answer>").outcome == "correct"
    assert task.grade(made, "<answer>x + C</answer>") == Grade("wrong", "x + C")
    assert task.grade(made, "no answer").outcome == "no_answer"


def test_a_check_that_hangs_or_breaks_is_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    task, made = question("simple_integration")
    variable = json.loads(made.data)["metadata"]["variable"]
    slow = f"({variable} + 1)**64*sin({variable})"
    with monkeypatch.context() as patched:
        patched.setattr(reasoning_gym, "SCORE_SECONDS", 0.001)
        assert task.grade(made, f"<answer>{slow}</answer>") == Grade("no_answer", slow, "check_timed_out")
    broken = Question(made.id, made.task, "", made.text, made.answer, "{")
    assert task.grade(broken, "<answer>x</answer>").reason == "check_failed"


FOOLING: dict[str, list[str]] = {
    "advanced_geometry": ["{answer}, 5"],
    "chain_sum": ["{answer},,"],
    "coin_flip": ["0"],
    "complex_arithmetic": ["NaN"],
    "cryptarithm": ["A=1,{answer},{answer}"],
    "fraction_simplification": ["{answer} or 1/2", "{answer}junk"],
    "game_of_life_halting": ["yes", "0"],
    "graph_color": ['{"0": 9, "77": 1, {inside}'],
    "gsm_symbolic": ["-{answer}", "{answer} or 1020", "{answer} of -7"],
    "jugs": ['["fill A please", {inside}'],
    "kakurasu": ["{answer}x", "-{answer}"],
    "knights_knaves": ["{answer} Perhaps.", "Maybe {answer}"],
    "letter_jumble": ["{answer} more words"],
    "polynomial_equations": ["{answer}, many", "x, {answer}"],
    "prime_factorization": ["× {answer} ×"],
    "propositional_logic": ["{answer} ∨ junk"],
    "puzzle24": ["6 * 4 * 1 * 1", "6 * 4 + 1 / 2"],
    "quantum_lock": ["no: {answer}", "{answer}0"],
    "rubiks_cube": ["2U 9x9 {answer}"],
    "simple_integration": ["{answer}x"],
    "spell_backward": ["{answer} and more"],
    "survo": ["so {answer} it is"],
    "time_intervals": ["{answer} or so", "{answer}:99"],
    "tower_of_hanoi": ["-{answer}"],
    "word_sorting": ["{answer}, more"],
}


@pytest.mark.parametrize("member", sorted(FOOLING))
def test_what_fools_the_library_does_not_fool_us(member: str) -> None:
    """Each text gets full marks from the library for some question, and from us for none."""
    task = tasks.get(f"reasoning_gym:{member}")
    with scoring._quiet():
        dataset = scoring._create(member, {"seed": 5, "size": 15})
        found = [kept for i in range(15) if (kept := scoring._checked(member, dataset, dataset[i]))]
    for text in FOOLING[member]:
        fooled = 0
        for entry in found:
            made = task.make(**entry)
            answer = text.replace("{answer}", made.answer.strip()).replace("{inside}", made.answer[1:])
            fooled += dataset.score_answer(answer, entry) >= 1
            right = member == "puzzle24" and sorted(entry["metadata"]["numbers"]) == [1, 1, 4, 6]
            assert right or verdict(member, made, answer) != "correct", answer
        assert fooled, text


@pytest.mark.parametrize(
    ("member", "change"), [("decimal_arithmetic", 0.0009), ("number_format", 0.009), ("pool_matrix", 0.02)]
)
def test_numbers_that_are_only_near_are_wrong(member: str, change: float) -> None:
    task = tasks.get(f"reasoning_gym:{member}")
    with scoring._quiet():
        dataset = scoring._create(member, {"seed": 5, "size": 10})
    fooled = 0
    for entry in entries(member, 10):
        made = task.make(**entry)
        first, *others = made.answer.split(" ")
        if "\n" in first:
            continue
        near = " ".join([f"{float(first) + change:.9f}", *others])
        fooled += dataset.score_answer(near, entry) >= 1
        assert verdict(member, made, near) == ""
        longer = " ".join([f"{float(first):.13f}", *others])  # other writings of the same
        assert verdict(member, made, longer) == "correct"
    assert fooled


def test_a_reference_below_zero_is_not_any_number() -> None:
    """The library measures how far an answer is relative to it, and a negative distance is worth more than 1."""
    task = tasks.get("reasoning_gym:calendar_arithmetic")
    made = task.make(question="?", answer="-1", metadata={"task": "recurring_event_day"})
    assert [verdict("calendar_arithmetic", made, answer) for answer in ("-1", "7", "0")] == ["correct", "", ""]


@pytest.mark.parametrize(("numbers", "target", "answer"), [([2, 3], 8, "2**3"), ([999_999, 1], 999_999, "999999 + 1")])
def test_powers_and_near_values_are_no_countdown(numbers: list[int], target: int, answer: str) -> None:
    metadata = {"numbers": numbers, "target": target}
    made = tasks.get("reasoning_gym:countdown").make(question="?", answer="", metadata=metadata)
    assert scoring._create("countdown", {}).score_answer(answer, {"metadata": metadata}) == 1
    assert verdict("countdown", made, answer) == ""


def test_a_larger_board_is_another() -> None:
    _, made = question("game_of_life")
    assert verdict("game_of_life", made, json.dumps(json.loads(made.answer))) == "correct"
    assert verdict("game_of_life", made, f"{made.answer[:-1]}, [1, 1]]") == ""


def test_premises_do_not_contradict_each_other() -> None:
    """Otherwise whatever is said follows from them, and with it the opposite."""
    dataset = scoring._create("propositional_logic", {"seed": 5, "size": 40})
    kept = entries("propositional_logic", 40)
    assert 20 < len(kept) < 40
    assert not any(dataset.score_answer(f"¬{entry['answer']}", entry) >= 1 for entry in kept)


def test_conclusions_may_be_written_otherwise() -> None:
    task = tasks.get("reasoning_gym:propositional_logic")
    entry = next(each for each in entries("propositional_logic", 20) if each["answer"].count("(") == 1)
    made = task.make(**entry)
    for text in (f"({made.answer})", made.answer[1:-1], made.answer.replace(" ", ""), f"¬¬{made.answer}"):
        assert verdict("propositional_logic", made, text) == "correct", text
    for text in (made.answer[1:], made.answer[:-1], f"{made.answer} P", f"{made.answer})"):
        assert verdict("propositional_logic", made, text) != "correct", text


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
        ("zzz", {}, "`skillfactory tasks reasoning_gym` lists them"),
        ("composite", {}, r"`reasoning_gym:composite` cannot be used: it is made of others; name those\."),
        ("boxnet", {}, r"`reasoning_gym:boxnet` cannot be used: the library gives it no reference answers\."),
        ("rush_hour", {}, "gives it no reference answers"),
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


def test_parameters_that_give_no_references_are_refused() -> None:
    task = tasks.get("reasoning_gym:simple_integration", min_degree=70, max_degree=75)
    with pytest.raises(QuestionError, match=r"none of its first 100 entries has a reference answer that passes"):
        task.generate(1, 0)


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
