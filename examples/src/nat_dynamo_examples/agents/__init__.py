"""A framework a file: `agent(llm, tools, instructions)` gives the function that answers a question."""
