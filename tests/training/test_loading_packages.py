"""Test that a package that a tokenizer needs is named where it is missing."""

import importlib.util

import pytest

from crosstask.training.loading import describe_missing_package

MESSAGES = {
    "`tiktoken` is required to read a `tiktoken` file.": "sentencepiece",
    "MBartTokenizer requires the SentencePiece library but it was not found.": "sentencepiece",
    "You need to install sacremoses to use FSMTTokenizer.": "sacremoses",
}


@pytest.mark.parametrize(("message", "package"), MESSAGES.items())
def test_missing_package_of_a_tokenizer_is_named(monkeypatch, message, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    sentence = describe_missing_package(ImportError(message))
    assert sentence.startswith(f"its tokenizer needs the package {package}, which is not installed; expected")
    extra = '"crosstask[tokenizers]"' if package == "sentencepiece" else package
    assert sentence.endswith(f"`pip install {extra}`")


def test_other_errors_of_a_tokenizer_are_not_blamed_on_a_package():
    assert (
        describe_missing_package(ValueError("sentencepiece file is damaged"))
        == "sentencepiece file is damaged"
    )
