"""The types that users see. mypy checks this file; nothing runs it."""

from typing import Any, Dict, List, Optional

from typing_extensions import assert_type

from claude_force import (
    AgentOrchestrator,
    AgentResult,
    AsyncAgentOrchestrator,
    AsyncAgentResult,
    ClaudeForceError,
    WorkflowResult,
)


async def async_calls() -> None:
    async with AsyncAgentOrchestrator(max_concurrent=10, timeout_seconds=30, max_retries=3) as entered:
        assert_type(entered, AsyncAgentOrchestrator)

    orchestrator = AsyncAgentOrchestrator(config_path=None, api_key=None)
    one = await orchestrator.execute_agent("python-expert", "Explain decorators")
    assert_type(one, AgentResult)
    many = await orchestrator.execute_multiple(
        [("python-expert", "Explain lists"), ("code-reviewer", "Review: def foo(): pass")]
    )
    assert_type(many, List[AgentResult])
    await orchestrator.close()


def sync_calls() -> None:
    orchestrator = AgentOrchestrator()
    assert_type(orchestrator.run_agent("python-expert", "Explain decorators"), AgentResult)
    assert_type(
        orchestrator.run_multiple([("python-expert", "Explain lists"), ("python-expert", "Explain sets")]),
        List[AgentResult],
    )
    assert_type(orchestrator.run_workflow("review", "Look at this change"), WorkflowResult)
    assert_type(orchestrator.list_agents(), List[Dict[str, Any]])


def results(result: AsyncAgentResult) -> None:
    same: AgentResult = result
    assert_type(same.agent_name, str)
    assert_type(same.success, bool)
    assert_type(same.output, str)
    assert_type(same.metadata, Dict[str, Any])
    assert_type(same.errors, Optional[List[str]])
    assert_type(same.cost, Optional[float])
    assert_type(same.error, Optional[ClaudeForceError])
    assert_type(same.to_dict(), Dict[str, Any])
