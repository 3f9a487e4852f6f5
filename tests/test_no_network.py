import socket

import pytest


@pytest.fixture
def offline(monkeypatch):
    """Refuses every socket of the internet; counts how often one was asked for."""
    asked = []

    class Refused(socket.socket):
        def __init__(self, family=-1, *arguments, **options):
            if family in (-1, socket.AF_INET, socket.AF_INET6) and not options.get("fileno"):
                asked.append(family)
                raise PermissionError("there is no network here")
            super().__init__(family, *arguments, **options)

    def refused(*arguments, **options):
        asked.append(arguments)
        raise socket.gaierror("there is no network here")

    monkeypatch.setattr(socket, "socket", Refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    return asked


def test_sockets_of_the_internet_are_refused_here(offline):
    for family in (socket.AF_INET, socket.AF_INET6):
        with pytest.raises(PermissionError):
            socket.socket(family)
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("127.0.0.1", 9))


def test_a_run_and_its_prediction_ask_for_no_network(offline, cli, tiny_fit, tmp_path):
    cold = f"--data.cache_dir={tmp_path / 'cache'}"  # data and tokenizer are made here too
    fitted = tiny_fit(
        "quickstart/pretrain.yaml", tmp_path, "--run=a", "--trainer.max_steps=2", cold
    )
    assert fitted.code == 0, fitted.err
    answered = cli("predict", "--ckpt_path", tmp_path / "a", "--data.prompts", '["Anna"]')
    assert answered.code == 0, answered.err
    assert "Anna" in answered.out
    assert offline == []
