"""One sentence for each metric of a report."""

DESCRIPTIONS = {
    "rouge1": "ROUGE-1: F1 of the words that a summary shares with the reference.",
    "rouge2": "ROUGE-2: F1 of the shared pairs of neighboring words.",
    "rougeL": "ROUGE-L: F1 of the longest common subsequence of words.",
    "rougeLsum": "ROUGE-Lsum: ROUGE-L by sentence, as papers on summarization report it.",
    "answer_recall": "Share of the answer's words that the summary contains, on rows with an answer.",
    "answer_exact": "Share of summaries that contain the answer as a phrase, on rows with an answer.",
    "bertscore": "BERTScore: F1 of tokens matched by their contextual embeddings.",
    "entailment": "Probability of the judge that the summary entails the answer.",
    "faithfulness": "Share of the summary's numbers and names that occur in the passage.",
    "coverage": "Share of the summary's words that lie in fragments copied from the passage.",
    "density": "Mean length of the copied fragments that the words of a summary lie in, in words.",
    "length": "Words of the summary.",
    "accuracy": "Share of rows whose label the answerability matches at a threshold of .5.",
    "f1": "F1 of label 1 at a threshold of .5.",
    "auroc": "Probability that a row labeled 1 gets a higher answerability than one labeled 0; chance is .5.",
    "average_precision": "Area under the precision-recall curve of label 1.",
    "brier": "Mean squared difference between answerability and label; lower is better.",
    "ece": "Expected calibration error: mean gap between predicted and observed shares; lower is better.",
}
