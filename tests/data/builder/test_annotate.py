"""Test the second step of a build with stand-ins for the teacher and the judge."""

import pytest

from crosstask.data.build import BuildArguments
from crosstask.data.builder.annotate import Annotator

PROBABILITIES = {"best": 0.9, "middle": 0.5, "worst": 0.1}


class StubTeacher:
    """Write the same candidates for every pair; a question "long" leaves no room for its passage."""

    def __init__(self, candidates):
        self.candidates, self.calls = candidates, []

    def write_candidates(self, pairs, n, update):
        self.calls.append((pairs, n))
        return [[] if question == "long" else self.candidates[:n] for question, _ in pairs]


class StubJudge:
    contradiction_index = None

    def make_hypotheses(self, questions, answers):
        return list(answers)

    def score(self, premises, hypotheses, update=None, index=None):
        return [PROBABILITIES[premise] for premise in premises]


def make_row(row_id, question="What?", answer="bridge"):
    texts = {"passage": "A bridge.", "question": question, "answer": answer, "summary": "", "source": "test"}
    return {"id": row_id, **texts, "answerable": None, "split": None, "location": {"source": "f", "line": 1}}


@pytest.fixture
def make_annotator():
    """Return a function that makes an annotator of mode question with stand-ins for the models."""

    def make(candidates, hard_negatives=False):
        recipe = {"data": "rows.jsonl", "output_dir": "set", "teacher": "none", "judge": "none"}
        annotator = Annotator(BuildArguments(**recipe))
        annotator.arguments.mode, annotator.arguments.candidates = "question", 3
        annotator.arguments.hard_negatives = hard_negatives
        annotator.teacher, annotator.judge = StubTeacher(candidates), StubJudge()
        return annotator

    return make


def test_the_best_candidate_becomes_the_summary(make_annotator):
    [line] = make_annotator(["middle", "best", "worst"]).annotate([make_row("a")])
    assert (line["row"]["summary"], line["row"]["entailment"]) == ("best", 0.9)
    assert line["row"]["negative"] is False and "location" not in line["row"]


def test_the_worst_candidate_becomes_a_hard_negative(make_annotator):
    annotator = make_annotator(["middle", "best", "worst"], hard_negatives=True)
    _, line = annotator.annotate([make_row("a")])
    assert (line["row"]["id"], line["row"]["summary"]) == ("a-negative", "worst")
    assert line["row"]["negative"] is True


def test_equal_candidates_give_no_hard_negative(make_annotator):
    assert len(make_annotator(["best", "best", "best"], hard_negatives=True).annotate([make_row("a")])) == 1


def test_a_row_without_an_answer_gets_one_candidate_that_is_not_judged(make_annotator):
    annotator = make_annotator(["middle", "best"])
    lines = annotator.annotate([make_row("a", answer=""), make_row("b")])
    assert (lines[0]["row"]["summary"], lines[0]["row"]["entailment"]) == ("middle", None)
    assert lines[1]["row"]["summary"] == "best"
    assert [n for _, n in annotator.teacher.calls] == [3, 1]


@pytest.mark.parametrize(
    ("question", "reason"),
    [("What?", "the teacher wrote nothing"), ("long", "question leaves no room for the passage")],
)
def test_a_row_without_a_summary_is_rejected(make_annotator, question, reason):
    [line] = make_annotator(["", ""]).annotate([make_row("a", question, answer="")])
    assert line == {"reject": {"source": "f", "line": 1, "id": "a", "reason": reason}}


def test_without_teacher_and_judge_the_summary_is_kept():
    annotator = Annotator(BuildArguments(data="rows.jsonl", output_dir="set", teacher="none", judge="none"))
    [line] = annotator.annotate([make_row("a") | {"summary": "A bridge."}])
    assert (line["row"]["summary"], line["row"]["entailment"]) == ("A bridge.", None)


class LiteralJudge(StubJudge):
    """Find an answer entailed if the summary has it, and a summary with "lie" contradicted."""

    contradiction_index = 2

    def score(self, premises, hypotheses, update=None, index=None):
        if index == self.contradiction_index:
            return [0.9 if "lie" in hypothesis else 0.2 for hypothesis in hypotheses]
        pairs = zip(premises, hypotheses, strict=True)
        return [0.8 if hypothesis in premise else 0.3 for premise, hypothesis in pairs]


def test_a_wrong_value_becomes_a_negative_with_the_judges_probability(make_annotator):
    annotator = make_annotator(["the bridge opened", "the tower opened"])
    annotator.judge, annotator.arguments.wrong_values = LiteralJudge(), 1.0
    rows = [make_row("a"), {**make_row("b", answer="tower"), "passage": "A tower."}]
    lines = [line["row"] for line in annotator.annotate(rows)]
    assert [row["id"] for row in lines] == ["a", "b", "a-wrong", "b-wrong"]
    assert [row["summary"] for row in lines[2:]] == ["the tower opened", "the bridge opened"]
    assert [row["entailment"] for row in lines] == [0.8, 0.8, 0.3, 0.3]
    assert [row["negative"] for row in lines] == [False, False, True, True]
    annotator.arguments.wrong_values = 0.0
    assert len(annotator.annotate(rows)) == 2


def test_the_passage_may_contradict_a_summary(make_annotator):
    annotator = make_annotator(["the bridge is a lie"])
    annotator.judge = LiteralJudge()
    [line] = annotator.annotate([make_row("a")])
    assert (line["row"]["entailment"], line["row"]["contradiction"]) == (0.8, 0.9)
    annotator.arguments.faithful = False
    [line] = annotator.annotate([make_row("a")])
    assert line["row"]["contradiction"] is None
