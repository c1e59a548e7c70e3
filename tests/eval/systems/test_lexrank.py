import itertools
import subprocess
import sys

import numpy as np
import pytest
from extractive_texts import PASSAGE, generate_texts, make_row

from crosstask.eval.systems.lexrank import LexRank
from crosstask.sentences_crosstask import split_sentences
from crosstask.utils.errors import DataError

pytest.importorskip("sumy")


def test_scores_agree_with_sumy():
    from sumy.models.dom import ObjectDocumentModel, Paragraph, Sentence
    from sumy.nlp.stemmers import Stemmer
    from sumy.summarizers.lex_rank import LexRankSummarizer
    from sumy.utils import get_stop_words

    class Words:
        def to_words(self, text):
            return text.replace(".", "").split()

    sumy = LexRankSummarizer(Stemmer("english"))
    sumy.stop_words = get_stop_words("english")
    document = ObjectDocumentModel([Paragraph([Sentence(s, Words()) for s in split_sentences(PASSAGE)])])
    for k in (1, 2, 3, 5):
        expected = " ".join(map(str, sumy(document, k)))
        assert LexRank(k).write([make_row(PASSAGE)]).summaries == [expected]
    system = LexRank()
    _, stems, cosines = system.parse(PASSAGE)
    assert stems == [sumy._to_words_set(sentence) for sentence in document.sentences]
    tf, idf = sumy._compute_tf(stems), sumy._compute_idf(stems)
    for i, j in itertools.product(range(len(stems)), repeat=2):
        cosine = sumy.cosine_similarity(stems[i], stems[j], tf[i], tf[j], idf)
        assert cosines[i, j] == pytest.approx(cosine)
    matrix = sumy._create_matrix(stems, 0.1, tf, idf)
    assert system.compute_centrality(cosines) == pytest.approx(sumy.power_method(matrix, 0.1))


def test_the_question_changes_the_selection():
    [summary] = LexRank(1).write([make_row(PASSAGE)]).summaries
    assert "bridge" in summary
    rows = [
        make_row(PASSAGE, q) for q in ("Which song did children sing?", "How much does a new bridge cost?")
    ]
    first, second = LexRank(1, question=True).write(rows).summaries
    assert first == "Children sang a song in the hall."
    assert second == "A new bridge would cost ten million."


def test_the_biased_scores_satisfy_their_equation():
    system = LexRank(question=True, d=0.6)
    passage, _ = next(generate_texts(seed=1, count=1))  # its sentences share many words, so all links differ
    _, stems, cosines = system.parse(passage)
    question = system.stem("Which dogs ran in the park?")
    scores = system.compute_biased_scores(stems, cosines, question)
    assert scores.sum() == pytest.approx(1)
    links = np.where(cosines > 0.1, cosines, 0)
    relevance = np.zeros(len(stems))
    for index, sentence in enumerate(stems):
        for word in set(question):
            sf = sum(word in words for words in stems)
            idf = np.log((len(stems) + 1) / (0.5 + sf))
            relevance[index] += np.log(sentence.count(word) + 1) * np.log(question.count(word) + 1) * idf
    expected = 0.6 * relevance / relevance.sum() + 0.4 * (links / links.sum(0)) @ scores
    assert scores == pytest.approx(expected)


def test_a_repeated_sentence_is_selected_once():
    passage = "The bridge is closed. Rain fell. The bridge is closed. THE BRIDGE IS CLOSED. A cat sat there."
    for system in (LexRank(), LexRank(question=True)):
        [summary] = system.write([make_row(passage, "Is the bridge closed?")]).summaries
        assert summary.lower().count("the bridge is closed.") == 1


@pytest.mark.parametrize("d", [0, 1.5, "a", None, True])
def test_the_weight_of_the_question_must_be_above_0_and_up_to_1(d):
    with pytest.raises(DataError, match="d is .*, expected a number above 0 and up to 1"):
        LexRank(question=True, d=d)


def test_without_sumy_the_error_names_the_extra():
    code = "import sys; sys.modules['sumy'] = None\n"
    code += "from crosstask.eval.systems.lexrank import LexRank; LexRank()"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs the package sumy: pip install 'crosstask[eval]'" in process.stderr
