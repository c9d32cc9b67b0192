"""Tokenizer, chat template, models, and what a training batch teaches."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from benchmarks.generation.checkpoints import (
    BOS,
    EOS,
    FAMILIES,
    PAD,
    encode_batch,
    make_model,
    make_tokenizer,
    prompt,
    save,
)

TEXTS = ("bako", "7 March 2024\n", "Ünïcödé, 日本 and 🛩", " two  spaces ", "")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_one_token_a_byte(family, text):
    tokenizer = make_tokenizer(family)
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode()) + 1
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert ids[0 if family == "causal" else -1] == (BOS if family == "causal" else EOS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_read_by_transformers_and_says_the_same(family, tiny, tmp_path):
    model = make_model(family, tiny)
    save(model, family, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    auto = AutoModelForCausalLM if family == "causal" else AutoModelForSeq2SeqLM
    loaded = auto.from_pretrained(tmp_path)
    batch = encode_batch(family, make_tokenizer(family), [("bako", "okab"), ("ti", "it")])
    torch.testing.assert_close(loaded.eval()(**batch).logits, model.eval()(**batch).logits)
    assert tokenizer("é")["input_ids"] == make_tokenizer(family)("é")["input_ids"]
    assert tokenizer.model_max_length == 512
    assert (loaded.generation_config.eos_token_id, loaded.generation_config.pad_token_id) == (
        EOS, PAD,
    )  # fmt: skip


def test_a_chat_is_the_prompt_of_its_last_user_message(tmp_path, tiny):
    save(make_model("causal", tiny), "causal", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    chat = [
        {"role": "system", "content": "Spell the word backwards."},
        {"role": "user", "content": "timo"},
        {"role": "assistant", "content": "omit"},
        {"role": "user", "content": "bako"},
    ]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert asked == tokenizer(prompt("causal", "bako"))["input_ids"]
    answered = [*chat, {"role": "assistant", "content": "okab"}]
    assert tokenizer.apply_chat_template(answered, tokenize=False) == "<s>bako\nokab</s>"


def test_a_causal_batch_teaches_the_answer_and_its_end_only():
    tokenizer = make_tokenizer("causal")
    batch = encode_batch("causal", tokenizer, [("ab", "c"), ("a", "ccc")])
    texts = [tokenizer.decode(ids) for ids in batch["input_ids"]]
    assert texts == ["<s>ab\nc</s><pad>", "<s>a\nccc</s>"]
    learnt = [tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert learnt == ["c</s>", "ccc</s>"]
    kept = batch["labels"] != -100
    assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])


def test_a_seq2seq_batch_reads_the_input_and_teaches_the_answer():
    tokenizer = make_tokenizer("seq2seq")
    batch = encode_batch("seq2seq", tokenizer, [("ab", "c"), ("a", "ccc")])
    assert [tokenizer.decode(ids) for ids in batch["input_ids"]] == ["ab</s>", "a</s><pad>"]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    learnt = [tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert learnt == ["c</s>", "ccc</s>"]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_has_three_to_four_million_parameters_and_a_seed(family):
    model = make_model(family)
    assert 3e6 < model.num_parameters() < 4e6
    same, other = make_model(family), make_model(family, seed=1)
    weights = [next(iter(m.parameters())) for m in (model, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
