"""The commands of the command line, one file each; `lit_llm.cli` picks one."""
