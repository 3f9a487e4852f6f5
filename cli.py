"""The door: python cli.py fit --config configs/recipes/quickstart/pretrain.yaml."""

from lit_llm.cli import main

if __name__ == "__main__":
    main()
