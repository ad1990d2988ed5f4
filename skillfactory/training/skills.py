"""The skills that rollouts show, read from their tags at each step: so one sees a skill appear while RL runs.

No attempt is graded here; whether verdicts are true and retries help is measured by the evaluation.
"""

from collections.abc import Sequence

from skillfactory.tags import bare, blocks, missing_tags, plain_answers, verdict_of
from skillfactory.tasks.answers import extract_answer

SKILLS = ("answers", "distinct_answers", "retries", "reflections", "incorrect_verdicts", "malformed")


def skill_use(texts: Sequence[str]) -> dict[str, float]:
    """The figures of SKILLS over some rollouts (at least one).

    Means a rollout of: explicit `answers` (samples that hold a complete answer; in a rollout without samples, each
    complete `<answer>…</answer>`), those of them that differ beyond blanks and case, `retries` (samples after an
    explicit answer), `reflections`. Shares: of verdicts that say incorrect (left out where there is no verdict), of
    rollouts in which a tag is missing or out of place.
    """
    totals = dict.fromkeys(SKILLS, 0)
    verdicts = 0
    for text in texts:
        found, _ = blocks(text)
        answers: list[str] = []
        samples = [bare(block.text) for block in found if block.kind == "sample"]
        for piece in samples or plain_answers(text):
            totals["retries"] += bool(samples and answers)
            if answer := extract_answer(piece):
                answers.append("".join(answer.split()).casefold())
        said = [verdict_of(block.text) for block in found if block.kind == "reflect"]
        totals["answers"] += len(answers)
        totals["distinct_answers"] += len(set(answers))
        totals["reflections"] += len(said)
        totals["incorrect_verdicts"] += said.count("incorrect")
        totals["malformed"] += missing_tags(text, cut=True) > 0  # whether it was is not known here
        verdicts += len(said) - said.count("")
    shares = {name: total / len(texts) for name, total in totals.items() if name != "incorrect_verdicts"}
    return shares | ({"incorrect_verdicts": totals["incorrect_verdicts"] / verdicts} if verdicts else {})
