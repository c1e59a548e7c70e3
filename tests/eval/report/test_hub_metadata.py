import yaml
from huggingface_hub import ModelCard, ModelCardData, parse_eval_result_entries

from crosstask.eval.report.hub_metadata import dump_eval_results, make_eval_results
from crosstask.eval.report.results import list_results


def test_a_model_card_keeps_the_eval_results(evaluation):
    results = list_results(evaluation, "cross-task")
    eval_results = make_eval_results(
        results, "someone/briefs", level=0.95, dataset_name="Briefs", split="test"
    )
    metrics = [result.metric_type for result in eval_results]
    assert metrics == [
        *("rouge1", "rougeL", "answer_recall", "length"),
        *("answerability_accuracy", "answerability_auroc", "answerability_brier"),
    ]
    assert eval_results[5].metric_name == "answerability auroc"
    card = f"---\n{ModelCardData(model_name='a model', eval_results=eval_results).to_yaml()}\n---\n"
    parsed = ModelCard(card).data.eval_results
    estimate = evaluation.estimates["cross-task"]["rouge1"]
    assert (parsed[0].metric_value, parsed[0].dataset_split) == (estimate.mean, "test")
    assert parsed[0].metric_args == {"level": 0.95, "low": estimate.low, "high": estimate.high}
    assert parsed[4].metric_args is None


def test_the_hub_reads_the_eval_results_file(evaluation):
    results = list_results(evaluation, "cross-task")
    text = dump_eval_results(results, "someone/briefs", level=evaluation.level, revision="abc")
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert [entry.task_id for entry in entries][:2] == ["rouge1", "rougeL"]
    assert entries[0].value == evaluation.estimates["cross-task"]["rouge1"].mean
    assert (entries[0].dataset_id, entries[0].dataset_revision) == ("someone/briefs", "abc")
    assert entries[0].notes.startswith("95% interval 1 to 1") and entries[-1].notes is None
