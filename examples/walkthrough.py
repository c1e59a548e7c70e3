# %% [markdown]
# # A question-prompted summarizer, step by step
#
# This notebook loads the quickstart's model (`python train.py configs/quickstart.yaml`) and shows what it
# returns. It is made from `examples/walkthrough.py` by `make notebook`. The model is tiny, and it knows
# nothing but *briefs*, short generated news reports.

# %%
import os
import warnings

if not os.path.exists("runs"):
    os.chdir("..")  # a notebook starts in its own folder, the runs are in the repository's root
os.environ["TQDM_DISABLE"] = "1"
warnings.filterwarnings("ignore")

import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402
from transformers import pipeline  # noqa: E402

from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor  # noqa: E402

torch.set_num_threads(2)
model = CrossTaskForConditionalGeneration.from_pretrained("runs/quickstart/crosstask")
processor = CrossTaskProcessor.from_pretrained("runs/quickstart/crosstask")
summarize = pipeline("question-summarization", model=model, processor=processor)
print(f"{model.num_parameters():,} parameters")
print(type(model.summarizer).__name__, "and", type(model.question_encoder).__name__)

# %% [markdown]
# ## One passage, several questions
#
# The summary follows the question. `answerability` is the probability that it carries the answer.

# %%
passage = (
    "The brick arena hosted the cup final in Elm Harbor. Reporters came to the scene. It was all done with "
    "borrowed screens. The bill comes to $6 million, and fans waited eight days for tickets."
)
questions = ["How much did organizers spend?", "Where did it happen?", "How long did fans wait?"]
results = summarize(question=questions, passage=passage, return_evidence=True)
for result in results:
    print(result["question"])
    print("  summary:      ", result["summary"])
    print("  answerability:", round(result["answerability"], 3))
    print("  evidence:     ", " ".join(result["evidence"]))

# %% [markdown]
# `merge=True` joins the summaries into one text: every statement once, in the passage's order.

# %%
print(summarize(question=questions, passage=passage, merge=True)["summary"])

# %% [markdown]
# ## Judge summaries of others
#
# `score_answerability` takes any summaries, as token ids with a start token before each. The first summary
# carries the answer, the second leaves it out.

# %%
candidates = [
    "The home team won the final at the brick arena, and the final cost $6 million to stage.",
    "The home team won the final at the brick arena.",
]
inputs = processor(question=[questions[0]] * 2, passage=passage, summary=candidates, return_tensors="pt")
labels = inputs.pop("labels")
start = torch.full((2, 1), model.config.decoder_start_token_id)
summary_ids = torch.cat([start, labels.masked_fill(labels == -100, model.config.pad_token_id)], dim=1)
probabilities = model.score_answerability(**inputs, summary_ids=summary_ids)
for candidate, probability in zip(candidates, probabilities, strict=True):
    print(f"{probability:.3f}  {candidate}")

# %% [markdown]
# ## What the answerability head attends to
#
# With `output_fusion_attentions=True`, `generate` also returns the attention from the tokens that the
# question encoder reads (here their mean) to the positions that predict the summary's tokens. Attention shows
# where the head looks, which need not be what its judgment rests on.

# %%
inputs = processor(question=questions[0], passage=passage, return_tensors="pt")
output = model.generate(**inputs, return_dict_in_generate=True, output_fusion_attentions=True)
attention = output.fusion_attentions[0].mean(dim=(0, 1))
tokens = processor.tokenizer.convert_ids_to_tokens(output.sequences[0, 1:])
words = [token.replace("Ġ", "") for token in tokens]

figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
axes.bar(range(len(words)), attention[: len(words)].numpy(), color="#0072B2")
axes.set_xticks(range(len(words)), words, rotation=60, ha="right")
axes.set_ylabel("attention, mean")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## Rerank candidates
#
# Four beams, ordered by likelihood and answerability together.

# %%
output = model.generate(
    **inputs, num_beams=4, num_return_sequences=4, answerability_rerank=1.0, return_dict_in_generate=True
)
texts = processor.batch_decode(output.sequences, skip_special_tokens=True)
for text, probability, score in zip(texts, output.answerability, output.rerank_scores, strict=True):
    print(f"score {score:7.3f}  answerability {probability:.3f}  {text.strip()}")
