"""Evaluation: scores of summaries and of answerability, baselines and plots."""
