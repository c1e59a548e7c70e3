"""Load a model and ask several questions about one passage."""

from transformers import pipeline

import crosstask  # noqa: F401  (registers the model and the pipeline, so that no remote code is needed)

PASSAGE = (
    "The brick arena hosted the cup final in Elm Harbor. Reporters came to the scene. It was all done with "
    "borrowed screens. The bill comes to $6 million, and fans waited eight days for tickets."
)
QUESTIONS = ["How much did organizers spend?", "Where did it happen?", "Who paid for it?"]

summarize = pipeline("question-summarization", model="runs/quickstart/crosstask")
for result in summarize(question=QUESTIONS, passage=PASSAGE, return_evidence=True, min_answerability=0.5):
    print(f"\n{result['question']}")
    print(f"  summary:       {result['summary']}")
    verdict = "answered" if result["answered"] else "not answered"
    print(f"  answerability: {result['answerability']:.3f} ({verdict})")
    print(f"  evidence:      {' '.join(result['evidence'])}")
