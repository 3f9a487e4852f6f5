"""lit_llm/commands/secret_kinds.py: which names and values are secrets."""

import pytest

from lit_llm.commands.secret_kinds import is_masked, is_secret, is_secret_name


@pytest.mark.parametrize(
    "name",
    "api_key hf_token token WANDB_API_KEY HF_TOKEN AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID "
    "password db_password clientSecret credentials Authorization apiKey MLFLOW_TRACKING_PASSWORD "
    "hfToken refresh_token github_token HF_HUB_TOKEN AWS_SESSION_TOKEN db_pwd".split(),
)
def test_the_name_of_a_key_says_that_it_holds_a_secret(name):
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    "tokenizer token_bytes max_new_tokens state_key bos_token eos_token tokens_per_step key "
    "flops_per_token author monitor tokenizer_from keep_last doc_token user_token split_token "
    "think_token auth cookie password_file credentials_path secret_name".split(),
)
def test_a_word_that_only_resembles_one_is_no_secret(name):
    assert not is_secret_name(name)
    for value in "val/loss", "kerberos", "<|doc_1|>", "line_break":
        assert not is_secret(name, value)


def test_a_secret_inside_a_setting_is_seen_to_have_stood_there():
    for value in "***", "https://***@host", "data/***.jsonl", "key *** of":
        assert is_masked(value)
    for value in "data/**/*.jsonl", "a*b", "", None, 3:
        assert not is_masked(value)
