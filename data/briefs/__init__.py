"""Briefs: an embedded data set of generated news, small and regular enough to learn on a CPU."""

from crosstask.data.briefs.generator import DOMAINS, MATCHINGS, SPLITS, TASKS, generate

__all__ = ["DOMAINS", "MATCHINGS", "SPLITS", "TASKS", "generate"]
