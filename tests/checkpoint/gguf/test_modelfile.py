from lit_llm.checkpoint.gguf.modelfile import modelfile


def test_without_a_template_ollama_is_to_guess_it():
    assert "TEMPLATE" not in modelfile("model-f16.gguf", None, [], context=640)


def test_a_modelfile_names_the_file_beside_it_the_template_and_what_ends_an_answer():
    text = modelfile("model-f16.gguf", "{{ .Prompt }}", ["<end>", '"'], context=640)
    settings = [line for line in text.splitlines() if not line.startswith("#")]
    assert settings == [
        "FROM ./model-f16.gguf",
        'TEMPLATE """{{ .Prompt }}"""',
        'PARAMETER stop "<end>"',
        'PARAMETER stop "\\""',
        "PARAMETER num_ctx 640",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
