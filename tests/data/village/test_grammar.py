from lit_llm.data.village.grammar import article, capital, sentence


def test_the_article_follows_the_first_sound():
    assert article("umbrella") == "an umbrella"
    assert article("red umbrella") == "a red umbrella"


def test_only_the_first_letter_is_raised():
    assert capital("her pet is Rex") == "Her pet is Rex"


def test_a_sentence_begins_with_a_capital_and_ends_with_a_stop():
    assert sentence("", "the cat", "sleeps") == "The cat sleeps."
