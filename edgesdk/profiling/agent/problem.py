"""The one error that the agent explains in a line."""


class AgentError(Exception):
    """Why the artifact cannot be measured here, in one line."""
