"""The trainer's judgment of summaries that the model writes itself."""

import json

import pytest
import torch
from datasets import Dataset
from tiny_run import write_recipe
from tiny_trainer import TEXTS, encode, get_logged, make_model, make_trainer
from transformers import Seq2SeqTrainingArguments

from crosstask import CrossTaskForConditionalGeneration, CrossTaskProcessor
from crosstask.data.briefs import generate
from crosstask.data.collator import ROW_INDEX_COLUMN, CrossTaskCollator
from crosstask.data.summary_labels import SummaryLabeler
from crosstask.data.tokenizer import train_tokenizer
from crosstask.data.wrong_values import make_wrong_rows
from crosstask.train import main
from crosstask.training.tuning import disable_reentrant_checkpointing


@pytest.fixture(scope="module")
def processor():
    return CrossTaskProcessor(train_tokenizer(TEXTS, 300), max_source_length=64)


def make_labeler(count, unknown=()):
    """Label every summary of a row wrong, except those with "bridge" of every third row; some not at all."""
    rows = [
        {
            "passage": f"{TEXTS[0]} {index}",
            "question": TEXTS[2],
            "answer": "" if index in unknown else ("bridge" if index % 3 == 0 else "Nobody"),
            "summary": "bridge" if index % 3 == 0 else "Nobody",
            "answerable": None if index in unknown else 1,
        }
        for index in range(count)
    ]
    return SummaryLabeler(rows)


def index_rows(data):
    return data.add_column(ROW_INDEX_COLUMN, range(len(data)))


def make_own_trainer(processor, folder, count=8, unknown=(), settings=None, **kwargs):
    model = make_model(processor, **(settings or {"fusion_likelihood": True}))
    model.generation_config.max_length = 6
    return make_trainer(
        model,
        processor,
        folder,
        train=index_rows(encode(processor, count)),
        summary_labeler=make_labeler(count, unknown),
        remove_unused_columns=False,
        **kwargs,
    )


def test_the_loss_is_that_of_the_written_summaries_with_their_labels(processor, tmp_path):
    trainer = make_own_trainer(processor, tmp_path)
    model, labeler = trainer.model.eval(), trainer.summary_labeler
    batch = CrossTaskCollator(processor)([row for row in encode(processor, 8)])
    with torch.no_grad():
        ids = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], num_beams=1)
        texts = processor.batch_decode(ids, skip_special_tokens=True)
        labels = torch.tensor(labeler.label(range(8), texts))
        probabilities = model.score_answerability(batch["input_ids"], batch["attention_mask"], ids)
        expected = -torch.where(labels == 1, probabilities, 1 - probabilities).log().mean()
    trainer.train()
    assert get_logged(trainer, "own_summary_loss")[0] == pytest.approx(expected.item(), rel=1e-3)
    terms = [get_logged(trainer, name)[0] for name in ("summary_loss", "answerability_loss")]
    assert get_logged(trainer)[0] == pytest.approx(sum(terms) + expected.item(), rel=1e-3)


@pytest.mark.parametrize("fusion", ["classifier", "gated"])
def test_gradient_accumulation_does_not_change_the_loss(processor, tmp_path, fusion):
    losses, weights = [], []
    for batch_size, steps in ((12, 1), (4, 3)):
        trainer = make_own_trainer(
            processor,
            tmp_path,
            count=12,
            unknown=(0, 1, 2, 5),
            settings={"fusion": fusion, "fusion_likelihood": True},
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
        )
        trainer.train()
        losses.append(get_logged(trainer, "own_summary_loss")[0])
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0] > 0
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


def test_only_every_so_many_steps_write_and_the_log_averages_these(processor, tmp_path):
    trainer = make_own_trainer(processor, tmp_path, own_summary_steps=2, max_steps=5, learning_rate=0.0)
    trainer.train()
    steps = [entry["step"] for entry in trainer.state.log_history if "own_summary_loss" in entry]
    assert steps == [1, 3, 5]  # the first, third and fifth step
    coarse = make_own_trainer(
        processor, tmp_path, own_summary_steps=2, max_steps=4, logging_steps=4, learning_rate=0.0
    )
    coarse.train()
    fine = get_logged(trainer, "own_summary_loss")
    assert get_logged(coarse, "own_summary_loss")[0] == pytest.approx(fine[0], rel=0.2)


def test_rows_without_a_label_have_no_loss(processor, tmp_path):
    trainer = make_own_trainer(processor, tmp_path, unknown=range(8))
    trainer.train()
    assert get_logged(trainer, "own_summary_loss") == [0.0]


def test_evaluation_writes_nothing_and_rows_without_an_index_are_refused(processor, tmp_path, monkeypatch):
    trainer = make_own_trainer(processor, tmp_path)
    monkeypatch.setattr(trainer.model, "generate", None)
    trainer.evaluate(encode(processor, 4))
    trainer.train_dataset = encode(processor, 8)
    with pytest.raises(ValueError, match="^summary_labeler: expected training rows with 'row_index'"):
        trainer.train()


def test_the_mode_of_the_model_is_restored_and_dropout_does_not_reach_generation(processor, tmp_path):
    trainer = make_own_trainer(
        processor, tmp_path, settings={"fusion_dropout": 0.5, "fusion_likelihood": True}
    )
    modes = []
    generate = trainer.model.generate
    trainer.model.generate = lambda *args, **kwargs: (
        modes.append(trainer.model.training) or generate(*args, **kwargs)
    )
    trainer.train()
    assert modes == [False] and trainer.model.training


def test_gradient_checkpointing_is_not_reentrant(processor, tmp_path):
    trainer = make_own_trainer(processor, tmp_path, gradient_checkpointing=True)
    name = "gradient_checkpointing_kwargs"
    kwargs = getattr(trainer.args, name, None) or trainer.args.activation_checkpointing_kwargs
    assert kwargs == {"use_reentrant": False}
    trainer.train()
    disable_reentrant_checkpointing(trainer.args)  # does not change what is set


def test_a_run_adds_wrong_values_judges_itself_and_is_calibrated(tmp_path, capsys):
    recipe = write_recipe(
        tmp_path,
        own_summary_steps=1,
        wrong_values=0.5,
        summary_loss_on="answerable",
        data_options={"passages": {"train": 24, "validation": 16, "test": 4}},
    )
    main([str(recipe)])
    output = capsys.readouterr().out
    assert "training rows with a wrong value are added (wrong_values)" in output
    assert "answerability is not calibrated: expected 50 or more labeled summaries" in output
    # An untrained summarizer writes nothing that is right: the labels are of one kind.
    model = CrossTaskForConditionalGeneration.from_pretrained(tmp_path / "run" / "crosstask")
    assert model.config.fusion_likelihood and model.config.answerability_trained
    assert model.config.answerability_temperature == 1.0 and model.config.answerability_threshold is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"answer": ""}, "as the rows have no answers"),
        ({"answer": "a dozen"}, "0% of the references labeled 1 have all words of their answer"),
    ],
    ids=["no answers", "paraphrases"],
)
def test_rows_whose_words_tell_nothing_are_not_judged(tmp_path, capsys, rows, message):
    data = Dataset.from_list(
        [
            {
                "passage": f"Twelve of {n} came.",
                "question": "How many?",
                "summary": f"Twelve came of {n}.",
                "answerable": 1 if rows["answer"] else None,
            }
            | rows
            for n in range(40)
        ]
    )
    data.to_json(tmp_path / "rows.jsonl")
    answer = {"data": "briefs", "data_options": {"passages": {"train": 8, "validation": 0, "test": 0}}}
    recipe = write_recipe(
        tmp_path, data=str(tmp_path / "rows.jsonl"), data_options=None, max_steps=1, answer=answer
    )
    main([str(recipe)])
    assert f"the model does not judge summaries of its own (own_summary_steps), {message}" in (
        capsys.readouterr().out
    ).replace("as 0%", "0%")


@pytest.mark.parametrize("built", [False, True])
def test_no_wrong_value_is_a_target_of_the_summary_loss(tmp_path, capsys, built):
    """With `summary_loss_on: all`, the rows of neither the stage nor the builder have one."""
    rows = list(generate("fuse", passages=12))
    wrong = make_wrong_rows(rows, 1.0)
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows + wrong * built))
    shares = {"validation": 0.2, "test": 0.2}
    values = {"data": str(source), "data_options": None, "data_shares": shares, "wrong_values": 1.0}
    answer = {"data": "briefs", "data_options": {"passages": {"train": 8, "validation": 0, "test": 0}}}
    counts = {}
    for setting in ("all", "answerable"):
        folder = str(tmp_path / setting)
        recipe = write_recipe(
            tmp_path, output_dir=folder, summary_loss_on=setting, max_steps=1, answer=answer, **values
        )
        main([str(recipe)])
        history = json.loads((tmp_path / setting / "history.json").read_text())
        counts[setting] = history["fuse"]["lengths"]["train"]["rows"]
        line = "as summary_loss_on: all would teach the model to write them"
        assert (line in capsys.readouterr().out) == (setting == "all")
    assert counts["all"] < counts["answerable"] <= len(rows) + len(wrong)


@pytest.mark.parametrize("key", ["contrastive_weight", "own_summary_steps"])
def test_reentrant_checkpointing_is_refused_before_the_first_stage(tmp_path, monkeypatch, key):
    monkeypatch.setattr(Seq2SeqTrainingArguments, "world_size", 2)
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    settings |= {"own_summary_steps": 0, "contrastive_weight": 0.0, key: 1}
    with pytest.raises(
        SystemExit, match="expected use_reentrant to be False beside contrastive_weight and o"
    ):
        main([str(write_recipe(tmp_path, **settings))])
    assert not (tmp_path / "run" / "summarizer").exists()
