"""Build a language model from scratch: raw text in, a chat model out."""
