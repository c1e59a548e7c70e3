"""The list of all corpora, and functions to find one by the columns of a record or by a name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from crosstask.data.readers.aclsum import ACLSUM
from crosstask.data.readers.briefs import BRIEFS
from crosstask.data.readers.cnn_dailymail import CNN_DAILYMAIL
from crosstask.data.readers.corpus import Corpus
from crosstask.data.readers.pubmedqa import PUBMEDQA
from crosstask.data.readers.qmsum import QMSUM
from crosstask.data.readers.squad_v2 import SQUAD_V2, SQUAD_V2_SUMMARIES
from crosstask.data.readers.squality import SQUALITY
from crosstask.data.readers.xsum import XSUM

# Columns are compared in this order; the first corpus that recognizes them is taken.
CORPORA: list[Corpus] = [
    SQUAD_V2_SUMMARIES,
    SQUAD_V2,
    CNN_DAILYMAIL,
    XSUM,
    QMSUM,
    SQUALITY,
    PUBMEDQA,
    ACLSUM,
    BRIEFS,
]


def recognize(columns: Iterable[str]) -> Corpus | None:
    """Return the corpus that has records with these columns, or `None` if they are of no known corpus.

    Records with a column `passage` already have the names of the schema, so they are of none.
    """
    columns = set(columns)
    if "passage" in columns:
        return None
    return next((corpus for corpus in CORPORA if corpus.recognizes(columns)), None)


def find_corpus(name: object) -> Corpus | None:
    """Return the corpus that a name stands for, or `None` if the name does not tell ("train.jsonl").

    Args:
        name (`str` or `os.PathLike`):
            The `source` of a row or the name of a data set: an id on the Hub, a path, or the name of a file.
    """
    components = [component.lower() for component in re.split(r"[/\\]", str(name))]
    for corpus in CORPORA:
        if corpus.name in components:
            return corpus
    for corpus in CORPORA:
        if corpus.official_files and re.fullmatch(corpus.official_files, components[-1]):
            return corpus
    return None
