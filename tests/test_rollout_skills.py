"""The skills that rollouts show, read from their tags."""

from hypothesis import given
from hypothesis import strategies as st

from skillfactory.evaluation.skill_use import read_skills
from skillfactory.recipe import Rl
from skillfactory.records import Response
from skillfactory.tasks.multiplication import Multiplication
from skillfactory.training import rl
from skillfactory.training.skills import SKILLS, skill_use

SEARCH = """<think>
<sample>
3 * 4 = 13. <answer> 13 </answer>
</sample>
<reflect>
No: <verdict>Incorrect</verdict>
</reflect>
Let me try again.
<sample>
It is <answer>\\boxed{13}</answer>
</sample>
<reflect>
<verdict>incorrect</verdict> or rather <verdict>correct</verdict>
</reflect>
<sample>
I give up.
</sample>
<reflect>
Hm.
</reflect>
</think>
<answer>12</answer>"""


def test_skills_of_rollouts_are_counted_by_their_tags() -> None:
    assert skill_use([SEARCH]) == {
        "answers": 2, "distinct_answers": 1, "retries": 2, "reflections": 3, "incorrect_verdicts": 0.5, "malformed": 0,
    }  # fmt: skip
    plain = "First <answer>12</answer>, no, <answer>Twelve</answer>, or <answer>tw elve</answer>. <answer>"
    assert skill_use([plain]) == {
        "answers": 3, "distinct_answers": 2, "retries": 0, "reflections": 0, "malformed": 0,
    }  # fmt: skip
    assert skill_use([SEARCH, plain, "", "</sample>"]) == {
        "answers": 1.25, "distinct_answers": 0.75, "retries": 0.5, "reflections": 0.75, "incorrect_verdicts": 0.5,
        "malformed": 0.25,
    }  # fmt: skip


PIECES = [
    "<sample>", "</sample>", "<reflect>", "</reflect>", "<answer>", "</answer>", "<answer>12</answer>", "12", "13",
    "\n", "<verdict>Correct</verdict>", "<verdict>incorrect</verdict>", "<think>", "</think>",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_rollouts_and_responses_are_read_alike(text: str) -> None:
    task = Multiplication()
    question = task.make(a=3, b=4)
    response = Response(question.id, "rl", "same", "sampled", 0, text, "", "wrong", "", "length", 1)
    measured = read_skills(task, question, response)
    seen = skill_use([text])
    for name in ("answers", "distinct_answers", "retries", "reflections", "malformed"):
        assert seen[name] == getattr(measured, name), name


def test_a_line_of_metrics_has_the_skills_that_were_logged() -> None:
    class Counter:
        dry = 0
        seconds = 1.0

    logs = {"reward": 0.5, "completions/mean_length": 5.0, "frac_reward_zero_std": 1.0, "completions/clipped_ratio": 0}
    line = rl._line(logs | {"skills/answers": 2.0, "skills/malformed": 0.0}, Counter(), Rl())  # type: ignore[arg-type]
    assert line is not None
    assert {name: line[name] for name in SKILLS} == dict.fromkeys(SKILLS) | {"answers": 2.0, "malformed": 0.0}
