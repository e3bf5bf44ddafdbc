"""The tools of agents: what may be used, and the tools themselves."""
