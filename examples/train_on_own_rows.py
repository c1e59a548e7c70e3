"""Train a model further on rows of your own, in Python instead of with a recipe."""

import json
import tempfile
from pathlib import Path

from transformers import Seq2SeqTrainingArguments

from crosstask import (
    CrossTaskCollator,
    CrossTaskForConditionalGeneration,
    CrossTaskProcessor,
    CrossTaskTrainer,
    read_rows,
)

MODEL = "runs/quickstart/crosstask"
ROWS = [
    {
        "passage": f"The council met on May {day}. It approved {day} new benches for the {color} park.",
        "question": "How many benches were approved?",
        "answer": f"{day} new benches",
        "summary": f"The council approved {day} new benches.",
        "answerable": 1,
    }
    for day in range(2, 29)
    for color in ("green", "old")
]

with tempfile.TemporaryDirectory() as folder:
    # A file of your own would already be there. It is split by passage into train, validation and test.
    path = Path(folder, "rows.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    rows = read_rows(path, "fuse")

    model = CrossTaskForConditionalGeneration.from_pretrained(MODEL)
    processor = CrossTaskProcessor.from_pretrained(MODEL)

    def encode(batch):
        columns = ("question", "passage", "summary", "answerable")
        return dict(processor(**{name: batch[name] for name in columns}))

    encoded = rows.map(encode, batched=True, remove_columns=rows["train"].column_names)
    trainer = CrossTaskTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=folder, max_steps=30, learning_rate=3e-4, logging_steps=10, report_to="none"
        ),
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        data_collator=CrossTaskCollator(processor),
        processing_class=processor,
    )
    trainer.train()
    print(trainer.evaluate())

row = rows["test"][0]
inputs = processor(question=row["question"], passage=row["passage"], return_tensors="pt")
output = model.generate(**inputs, return_dict_in_generate=True, max_new_tokens=32)
print(row["passage"])
print(processor.batch_decode(output.sequences, skip_special_tokens=True)[0], output.answerability.tolist())
