"""How good is a checkpoint? Numbers that can be compared, from text, questions and lm_eval.

subject          what is evaluated: the network, its tokenizer, how its prompts begin
likelihood       log-probabilities of continuations, many at once
result           metrics with their standard errors
records          questions from JSON Lines
bits_per_byte    how well is a text predicted?
multiple_choice  which of the choices is the likeliest?
exact_match      is the generated answer the right one?
answers          what the model writes after prompts, many at once
harness          tasks of lm-evaluation-harness
harness_tasks    where those come from: by name, or from a file
harness_model    the network as they want it
tasks            which task is meant by an entry of --tasks
history          evaluation.json: where it lies, and one more entry in it

The first three tasks need no other package and no network.
"""
