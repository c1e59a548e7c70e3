import pytest
from system_specs import PASSAGES, ROWS, SPECS
from transformers import AutoTokenizer, GPT2LMHeadModel, LlamaForCausalLM

from crosstask.eval.systems.chat import PROMPT, PROMPT_WITHOUT_QUESTION, ChatLM, tokenize_prompt
from crosstask.utils.errors import DataError


def test_the_prompt_uses_the_chat_template_or_plain_text(folders, monkeypatch):
    texts = {}
    for name, kind in (("llama", LlamaForCausalLM), ("gpt2", GPT2LMHeadModel)):
        calls = []

        def generate(self, calls=calls, original=kind.generate, **kwargs):
            calls.append(kwargs)
            return original(self, **kwargs)

        monkeypatch.setattr(kind, "generate", generate)
        ChatLM(folders[name], max_new_tokens=3).write([*ROWS, ROWS[0] | {"question": " "}])
        [batch] = calls
        mask = batch["attention_mask"]
        assert mask[:, -1].all() and not mask.all()  # padded on the left
        tokenizer = AutoTokenizer.from_pretrained(folders[name])
        rows = zip(batch["input_ids"], mask.bool(), strict=True)
        texts[name] = [tokenizer.decode(ids[attended], skip_special_tokens=True) for ids, attended in rows]
    prompts = [
        PROMPT.replace("{question}", row["question"]).replace("{passage}", row["passage"]) for row in ROWS
    ] + [PROMPT_WITHOUT_QUESTION.replace("{passage}", PASSAGES[0])]
    expected = {
        "llama": [f"<user>{prompt}<assistant>" for prompt in prompts],
        "gpt2": [f"{prompt}\n\nSummary:" for prompt in prompts],
    }
    tokenizer = AutoTokenizer.from_pretrained(folders["llama"])

    def round_trip(text):  # the small vocabulary does not preserve every character
        return tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)

    for name, decoded in texts.items():
        assert sorted(decoded) == sorted(map(round_trip, expected[name]))


@pytest.mark.parametrize("name", ["chat", "no template"])
def test_only_the_passage_is_truncated(folders, generate_inputs, name):
    model, long_passage = SPECS[name]["model"], PASSAGES[4] * 60
    tokenizer = AutoTokenizer.from_pretrained(folders[model])
    tokenizer.pad_token = tokenizer.eos_token
    room = len(tokenize_prompt(tokenizer, "Who fell?", ""))
    system = ChatLM(folders[model], max_source_length=room + 9, max_new_tokens=4)
    rows = [ROWS[0] | {"passage": long_passage, "question": q} for q in ("Who fell?", "Who fell? " * 40)]
    updates = []
    outputs = system.write(rows, updates.append)
    assert outputs.summaries[1] == "" and sum(updates) == 2
    [ids] = generate_inputs
    assert ids.shape[0] == 1 and room < ids.shape[1] <= room + 9
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert "Who fell?" in text and text.endswith("<assistant>" if name == "chat" else "Summary:")


def test_a_prompt_without_positions_for_the_summary_is_refused(folders):
    for settings in ({"max_new_tokens": 256}, {"max_source_length": 250, "max_new_tokens": 10}):
        with pytest.raises(DataError, match="expected a lower max_source_length or max_new_tokens"):
            ChatLM(folders["gpt2"], **settings).write(ROWS)
