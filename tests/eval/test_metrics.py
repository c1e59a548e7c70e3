"""Each metric loads offline from its folder, equals its functions, and matches the example of its card."""

import ast
import re
import sys
from pathlib import Path

import pytest
from transformers import BertConfig, BertForSequenceClassification

import crosstask.eval
from crosstask.data.builder.judge import Judge
from crosstask.eval.scoring.answerability import answerability_figures
from crosstask.eval.scoring.bertscore import bertscore_rows
from crosstask.eval.scoring.text_scores import entailment_rows, rouge_rows
from crosstask.utils.errors import DataError

evaluate = pytest.importorskip("evaluate")
get_imports = pytest.importorskip("evaluate.loading").get_imports

METRICS = Path(crosstask.eval.__file__).parent / "metrics"
NAMES = sorted(folder.name for folder in METRICS.iterdir() if (folder / f"{folder.name}.py").exists())
TEXT_METRICS = ("rouge", "answer_recall", "faithfulness", "extractiveness")
SUMMARIES = ["In May it rained for 2 days.", "", "Der Fluss stieg. 🌊", "川が増水した。"]
TEXTS = ["Rain fell in May for 2 days.", "It rained.", "Der Fluss stieg. 🌊", ""]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Return `load(name)`, which loads a metric with temporary folders for its modules and rows."""
    cache = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.config.HF_MODULES_CACHE", str(cache / "modules"))
        patch.setattr(sys, "path", [*sys.path])  # evaluate adds the folder of modules to it
        yield lambda name: evaluate.load(str(METRICS / name), cache_dir=str(cache / "rows"))


@pytest.fixture(scope="module")
def judge_folder(tokenizer, tmp_path_factory):
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
        label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
    )
    folder = tmp_path_factory.mktemp("judge")
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_the_metrics_are_complete():
    assert NAMES == sorted([*TEXT_METRICS, "answer_entailment", "answerability", "bertscore"])


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_text_metrics(load, name):
    metric = load(name)
    values = metric.compute(predictions=SUMMARIES, references=TEXTS)
    assert all(type(value) is float for value in values.values())
    one = metric.compute(predictions=SUMMARIES[:1], references=TEXTS[:1])
    many = metric.compute(predictions=SUMMARIES[:1] * 1000, references=TEXTS[:1] * 1000)
    assert one == pytest.approx(many)
    assert metric.compute(predictions=SUMMARIES[::-1], references=TEXTS[::-1]) == values
    metric.add_batch(predictions=SUMMARIES[:2], references=TEXTS[:2])
    metric.add_batch(predictions=SUMMARIES[2:], references=TEXTS[2:])
    assert metric.compute() == values


@pytest.mark.parametrize(
    ("name", "undefined"),
    [
        ("rouge", {"rouge1": None, "rouge2": None, "rougeL": None, "rougeLsum": None}),
        ("answer_recall", {"answer_recall": None, "answer_exact": None}),
        ("faithfulness", {"faithfulness": None}),
        ("extractiveness", {"coverage": None, "density": None, "length": 0}),
    ],
)
def test_text_metrics_of_empty_texts(load, name, undefined):
    assert load(name).compute(predictions=[""], references=[""]) == undefined


def test_rouge_with_several_references(load):
    references = [["Nothing.", TEXTS[0]], [], [TEXTS[2]], [""]]
    values = load("rouge").compute(predictions=SUMMARIES, references=references, rouge_types=["rouge1"])
    rows = rouge_rows(SUMMARIES, references, types=["rouge1"])["rouge1"]
    assert rows[1] is None and values == {"rouge1": pytest.approx((rows[0] + rows[2]) / 2)}
    unstemmed = load("rouge").compute(predictions=["bridges"], references=["bridge"], use_stemmer=False)
    assert unstemmed["rouge1"] == 0


def test_bertscore(load, minilm):
    pytest.importorskip("bert_score")
    metric = load("bertscore")
    for references in (TEXTS, [[text, "Nothing."] for text in TEXTS]):
        values = metric.compute(predictions=SUMMARIES, references=references, model=str(minilm))
        rows = bertscore_rows(SUMMARIES, references, model=str(minilm))["f1"]
        rows = [value for value in rows if value is not None]
        assert set(values) == {"precision", "recall", "f1"} and values["f1"] == pytest.approx(
            sum(rows) / len(rows)
        )
    with pytest.raises(DataError, match="num_layers is 7"):
        metric.compute(predictions=["a"], references=["a"], model=str(minilm), num_layers=7)


def test_answer_entailment(load, judge_folder):
    metric = load("answer_entailment")
    settings = {"hypothesis": "{question} {answer}", "device": "cpu"}
    questions = ["How long?", "What?", "What rose?", "What?"]
    values = metric.compute(
        predictions=SUMMARIES, references=TEXTS, questions=questions, judge=judge_folder, **settings
    )
    judge = Judge(judge_folder, **settings)
    rows = entailment_rows(judge, SUMMARIES, questions, TEXTS)
    assert rows[1] == 0 and rows[3] is None
    assert values["answer_entailment"] == pytest.approx(sum(rows[:3]) / 3)
    assert values["answer_entailed"] == sum(row > 0.5 for row in rows[:3]) / 3
    values = metric.compute(predictions=SUMMARIES, references=TEXTS, judge=Judge(judge_folder, device="cpu"))
    assert 0 < values["answer_entailment"] < 1


def test_answer_entailment_refuses_a_model_that_is_no_judge(load, judge_folder, minilm):
    with pytest.raises(DataError, match="judge: .*expected"):
        load("answer_entailment").compute(predictions=["a"], references=["a"], judge=str(minilm))


def test_answerability(load):
    probabilities, labels = [0.9, 0.4, 0.6, 0.1, 0.3], [1, 1, 0, 0, None]
    metric = load("answerability")
    values = metric.compute(predictions=probabilities, references=labels)
    assert values == answerability_figures(probabilities, [1, 1, 0, 0, -100])
    assert len(metric.compute(predictions=[0.5], references=[-100], bins=3)["reliability"]) == 3
    with pytest.raises(ValueError, match="row 0 is 2.0"):
        metric.compute(predictions=[2.0], references=[1])


@pytest.mark.parametrize("name", NAMES)
def test_evaluate_finds_all_imports(name):
    """`evaluate` reads imports line by line, and misses one that spans several lines."""
    path = METRICS / name / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    libraries = {library for kind, library, *_ in get_imports(str(path)) if kind == "library"}
    assert libraries == {module.split(".")[0] for module in modules} == {"crosstask", "datasets", "evaluate"}


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_the_card_is_correct(load, name):
    card = (METRICS / name / "README.md").read_text(encoding="utf-8")
    assert f'evaluate.load("eval/metrics/{name}")' in card
    example = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    call = next(
        n for n in ast.walk(ast.parse(example)) if getattr(getattr(n, "func", 0), "attr", "") == "compute"
    )
    arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    if {"model", "judge"} & set(arguments):
        return  # needs the Hub
    values = load(name).compute(**arguments)
    expected = ast.literal_eval(re.search(r"# (\{.*?\})", example)[1].replace(", ...", ""))
    assert {key: values[key] for key in expected} == pytest.approx(expected, abs=5e-4)
