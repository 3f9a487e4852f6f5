"""An invented village: text to pretrain on and questions that can be checked exactly.

Everything is a function of a seed, on every platform:

    chance       where chance comes from                grammar      a or an, capitals, lists
    names        what people are called, or are not     world        who lives there
    statements   one fact in many sentences             knowledge    common facts and small sums
    tense        sentences in the present and the past  prose        pretraining documents
    wordings     how a question may be asked            split        what fine-tuning never asks
    pairs        fine-tuning conversations              quiz         the test, with its kinds

`lit_llm.data.corpus` offers them as the sources Village, VillageChat and VillageQuiz.
What the village is for, and what its numbers mean, is told in docs/village.md.
"""
