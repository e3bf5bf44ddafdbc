"""The stand-in as an agent's model: scripts of tool calls, what it refuses, and its prompt cache."""

import asyncio
import json

import pytest
from fleet import FakeClock, fleet
from test_messages_server import MODEL, ask, events_of, eventually, prompt, sdk, stream
from tool_agents import Notes

from claude_force.conversation import Conversation, ToolResult, tool_uses
from claude_force.testing import Content, MessagesServer, RateLimit, Script, by_text, tool_calls
from claude_force.transport.protocol import AttemptRecord
from claude_force.transport.transport import Transport
from claude_force.types import Call

TOOLS = [{"name": name, "description": "x", "input_schema": {"type": "object"}} for name in ("Read", "Grep")]
READ = ("Read", {"file_path": "a.txt"})


def request(*messages, **fields):
    return prompt(messages=[{"role": "user", "content": "task"}, *messages], tools=TOOLS, **fields)


def use(identity="t1", **fields):
    return {"type": "tool_use", "id": identity, "name": "Read", "input": {}, **fields}


def answer(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def result(identity="t1", **fields):
    return {"type": "tool_result", "tool_use_id": identity, "content": "text", **fields}


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def results_of(reply):
    return user(*(result(block["id"]) for block in reply["content"] if block["type"] == "tool_use"))


class TestScript:
    SCRIPT = (
        tool_calls(READ, ("Grep", {"pattern": "x"}), text="I look.", thinking="Hm."),
        "It has two lines.",
    )

    def test_answers_turn_by_turn(self):
        with MessagesServer(answer=Script(self.SCRIPT)) as server:
            _, _, first = ask(server, request())
            assert [block["type"] for block in first["content"]] == [
                "thinking",
                "text",
                "tool_use",
                "tool_use",
            ]
            assert [block.get("input") for block in first["content"][2:]] == [READ[1], {"pattern": "x"}]
            assert first["stop_reason"] == "tool_use"
            _, _, last = ask(server, request(answer(*first["content"]), results_of(first)))
        assert last["content"] == [{"type": "text", "text": "It has two lines."}]
        assert last["stop_reason"] == "end_turn"

    def test_ids_are_the_same_each_time(self):
        def ids():
            with MessagesServer(answer=Script([tool_calls(READ, READ)] * 2)) as server:
                first = ask(server, request())[2]
                second = ask(server, request(answer(*first["content"]), results_of(first)))[2]
            return [block["id"] for block in (*first["content"], *second["content"])]

        assert ids() == ids()
        assert len(set(ids())) == 4

    def test_the_sdk_reads_the_stream(self):
        with MessagesServer(answer=Script(self.SCRIPT)) as server, sdk(server) as client:
            plain = client.messages.create(**request()).model_dump()
            with client.messages.stream(**request()) as events:
                streamed = events.get_final_message().model_dump()
        assert streamed["content"] == plain["content"]
        assert streamed["usage"]["output_tokens"] == plain["usage"]["output_tokens"]
        assert plain["content"][0]["signature"]

    def test_input_is_streamed_in_pieces(self):
        long = {"file_path": "x" * 100}
        with MessagesServer(answer=Script([tool_calls(("Read", long))])) as server:
            events = [json.loads(data) for _, data in events_of(stream(server, request()))]
        pieces = [one["delta"]["partial_json"] for one in events if one["type"] == "content_block_delta"]
        assert pieces[0] == "" and len(pieces) > 3
        assert json.loads("".join(pieces)) == long
        assert events[1]["content_block"]["input"] == {}

    def test_broken_input_is_streamed_as_it_is(self):
        with MessagesServer(answer=Script([tool_calls(("Read", '{"file_pa'))])) as server:
            assert rb'"partial_json":"{\"file_pa"' in stream(server, request())
            assert ask(server, request())[2]["content"][0]["input"] == {}

    def test_functions_make_answers(self):
        made = Script([lambda body: tool_calls(("Read", {"file_path": body["messages"][0]["content"]}))])
        with MessagesServer(answer=made) as server:
            assert ask(server, request())[2]["content"][0]["input"] == {"file_path": "task"}

    def test_content_is_sent_as_it_is(self):
        blocks = [
            {"type": "server_tool_use", "name": "web_search", "input": {"query": "x"}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        ]
        with MessagesServer(answer=Script([Content(blocks, "pause_turn")])) as server:
            reply = ask(server, request())[2]
        assert reply["stop_reason"] == "pause_turn"
        assert reply["content"][0]["id"].startswith("srvtoolu_")
        assert reply["content"][1] == blocks[1]

    def test_end_of_the_script_is_a_400(self):
        more = [answer({"type": "text", "text": "a"}), user({"type": "text", "text": "b"})]
        with MessagesServer(answer=Script(["only one"])) as server:
            status, _, reply = ask(server, request(*more))
        assert status == 400
        assert "The script has 1 answers, and this is request 2" in reply["error"]["message"]

    def test_forbidden_calls_become_text(self):
        plan = Script([tool_calls(READ, text="I stop here.")])
        silent = Script([tool_calls(READ)])
        for script, text in ((plan, "I stop here."), (silent, "No tool may be called any more.")):
            with MessagesServer(answer=script) as server:
                reply = ask(server, request(tool_choice={"type": "none"}))[2]
            assert reply["content"] == [{"type": "text", "text": text}]
            assert reply["stop_reason"] == "end_turn"

    def test_max_tokens_cut_the_input(self):
        long = ("Read", {"file_path": "x" * 400})
        with MessagesServer(answer=Script([tool_calls(long, READ, text="I look.")])) as server:
            events = [json.loads(data) for _, data in events_of(stream(server, request(max_tokens=20)))]
            reply = ask(server, request(max_tokens=20))[2]
        pieces = [
            one["delta"].get("partial_json", "") for one in events if one["type"] == "content_block_delta"
        ]
        assert len("".join(pieces)) == 80 - len("I look.")
        assert [one["type"] for one in reply["content"]] == ["text", "tool_use"]
        assert (reply["stop_reason"], reply["usage"]["output_tokens"]) == ("max_tokens", 20)

    def test_scripts_by_text(self):
        chosen = by_text({"# Reviewer": Script(["reviewed"]), "task": Script(["counted"])})
        with MessagesServer(answer=chosen) as server:
            assert (
                ask(server, request(system="# Reviewer\nYou review."))[2]["content"][0]["text"] == "reviewed"
            )
            assert ask(server, request())[2]["content"][0]["text"] == "counted"
            status, _, reply = ask(server, prompt("Other"))
        assert (status, "No script is for this request" in reply["error"]["message"]) == (400, True)

    def test_counts_calls_as_output(self):
        with MessagesServer(answer=Script([tool_calls(READ)])) as server:
            assert ask(server, request())[2]["usage"]["output_tokens"] == len(json.dumps(READ[1])) // 4

    def test_paced_stream_is_whole(self):
        with MessagesServer(answer=Script(self.SCRIPT), tokens_per_second=1000) as server:
            assert events_of(stream(server, request()))[-1][0] == "message_stop"
            assert eventually(lambda: server.bills[0].whole)


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "x"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("messages", "said"),
        [
            ([answer(use())], "`tool_use` ids were found without `tool_result` blocks immediately after: t1"),
            ([answer(use()), user({"type": "text", "text": "no"})], "without `tool_result`"),
            ([answer(use()), user({"type": "text", "text": "no"}, result())], "without `tool_result`"),
            ([answer(use("t1"), use("t2")), user(result("t2"))], "immediately after: t1."),
            ([answer(use()), user(result(), result())], "Found multiple `tool_result` blocks with id: t1"),
            (
                [answer(use()), user(result(), result("t9"))],
                "unexpected `tool_use_id` found in `tool_result`",
            ),
            ([answer({"type": "text", "text": "a"}), user(result())], "unexpected `tool_use_id`"),
            ([answer(use()), user(result()), answer(use()), user(result())], "ids must be unique, and t1"),
            ([answer(use(), use()), user(result())], "ids must be unique"),
            ([answer(use()), answer(use("t2")), user(result("t2"))], "roles must alternate"),
            ([answer(use()), user(result()), user({"type": "text", "text": "a"})], "roles must alternate"),
            ([answer(use(input=[1])), user(result())], "tool_use.input: Input should be a valid dictionary"),
            ([answer(use(identity=None)), user(result())], "tool_use.id: Input should be a valid string"),
            ([answer(THOUGHT, use()), user(result())], "Invalid `signature` in `thinking` block"),
            (
                [answer({"type": "text", "text": " "}, use()), user(result())],
                "must contain non-whitespace text",
            ),
            ([answer({"type": "text", "text": "so "})], "cannot end with trailing whitespace"),
        ],
    )
    def test_conversation_is_refused(self, messages, said):
        with MessagesServer() as server:
            status, _, reply = ask(server, request(*messages))
        assert (status, said in reply["error"]["message"]) == (400, True), reply

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools.0.custom.name: String should match"),
            ({"tools": [TOOLS[0], {"name": "x"}]}, "tools.1.custom.input_schema: Field required"),
            ({"tools": [TOOLS[0], TOOLS[0]]}, "Tool names must be unique"),
            ({"tools": [5]}, "tools.0.custom.name"),
            ({"tools": None, "tool_choice": {"type": "none"}}, "only be specified while providing tools"),
        ],
    )
    def test_definitions_are_refused(self, fields, said):
        with MessagesServer() as server:
            status, _, reply = ask(server, {**request(), **fields})
        assert (status, said in reply["error"]["message"]) == (400, True), reply

    def test_calls_need_definitions(self):
        with MessagesServer() as server:
            body = {
                name: value
                for name, value in request(answer(use()), user(result())).items()
                if name != "tools"
            }
            status, _, reply = ask(server, body)
        assert (status, "must define tools" in reply["error"]["message"]) == (400, True)

    def test_four_breakpoints_are_allowed(self):
        marked = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
        with MessagesServer() as server:
            assert ask(server, request(answer(marked), user(marked, marked, marked)))[0] == 200
            refused = [
                ask(server, request(answer(marked), user(*[marked] * 4))),
                ask(
                    server, request(answer(marked), user(*[marked] * 3), cache_control={"type": "ephemeral"})
                ),
            ]
        assert [one[0] for one in refused] == [400, 400]
        assert "A maximum of 4 blocks with cache_control" in refused[0][2]["error"]["message"]

    def test_thinking_has_no_breakpoint(self):
        with MessagesServer(answer=Script([tool_calls(READ, thinking="Hm."), "so"])) as server:
            first = ask(server, request())[2]
            thought, call = first["content"]
            marked = {**thought, "cache_control": {"type": "ephemeral"}}
            assert ask(server, request(answer(marked, call), results_of(first)))[0] == 400
            changed = {**thought, "thinking": "Hm"}
            assert ask(server, request(answer(changed, call), results_of(first)))[0] == 400
            assert ask(server, request(answer(thought, call), results_of(first)))[0] == 200

    def test_text_after_results_is_allowed(self):
        whole = [
            answer(use("t1"), use("t2")),
            user(result("t2"), result("t1"), {"type": "text", "text": "and"}),
        ]
        with MessagesServer() as server:
            assert ask(server, request(*whole))[0] == 200


def counts(server, body):
    usage = ask(server, body)[2]["usage"]
    return [
        usage[name] for name in ("cache_read_input_tokens", "cache_creation_input_tokens", "input_tokens")
    ]


def letters(letter, tokens, marked=False):
    control = {"cache_control": {"type": "ephemeral"}} if marked else {}
    return {"type": "text", "text": letter * 4 * tokens, **control}


class TestPromptCache:
    def prompt(self, *blocks, **fields):
        return prompt(messages=[user(*blocks)], **fields)

    def test_breakpoint_on_system_covers_tools(self):
        tools = [{**TOOLS[0], "description": "x" * 8000}]
        size = (len(json.dumps(tools[0])) + 4000) // 4
        body = self.prompt(letters("t", 10), tools=tools, system=[letters("s", 1000, True)])
        with MessagesServer() as server:
            assert counts(server, body) == [0, size, 10]
            assert counts(server, body) == [size, 0, 10]
            changed = {**body, "tools": [{**tools[0], "description": "y" * 8000}]}
            assert counts(server, changed) == [0, size, 10]

    def test_longer_prompt_reads_the_shorter(self):
        with MessagesServer() as server:
            assert counts(server, self.prompt(letters("a", 1024, True))) == [0, 1024, 0]
            assert counts(
                server, self.prompt(letters("a", 1024), letters("b", 100, True), letters("c", 5))
            ) == [
                1024,
                100,
                5,
            ]
            assert counts(server, self.prompt(letters("a", 1024, True), letters("b", 100, True))) == [
                1124,
                0,
                0,
            ]
            assert counts(server, self.prompt(letters("x", 1024, True), letters("b", 100, True))) == [
                0,
                1124,
                0,
            ]

    def test_only_breakpoints_are_stored(self):
        with MessagesServer() as server:
            assert counts(server, self.prompt(letters("a", 2000), letters("b", 1000, True))) == [0, 3000, 0]
            assert counts(server, self.prompt(letters("a", 2000, True), letters("c", 1000, True))) == [
                0,
                3000,
                0,
            ]
            assert counts(server, self.prompt(letters("a", 2000, True), letters("d", 1000, True))) == [
                2000,
                1000,
                0,
            ]

    def test_small_prefix_is_not_stored(self):
        with MessagesServer(prompt_cache_minimum=2048) as server:
            body = self.prompt(letters("a", 2047, True), letters("b", 1))
            assert counts(server, body) == counts(server, body) == [0, 0, 2048]
            assert counts(server, self.prompt(letters("a", 2047, True), letters("b", 1, True))) == [
                0,
                2048,
                0,
            ]

    @pytest.mark.parametrize(("between", "read"), [(18, 1024), (19, 1024), (20, 0), (30, 0)])
    def test_looks_back_twenty_blocks(self, between, read):
        more = [letters("b", 1) for _ in range(between - 1)]
        with MessagesServer() as server:
            counts(server, self.prompt(letters("a", 1024, True)))
            assert counts(server, self.prompt(letters("a", 1024), *more, letters("c", 1, True)))[0] == read

    @pytest.mark.parametrize(
        "change", [{"tool_choice": {"type": "none"}}, {"thinking": {"type": "adaptive"}}]
    )
    def test_tool_choice_changes_messages_alone(self, change):
        body = self.prompt(letters("a", 1024, True), tools=TOOLS, system=[letters("s", 1024, True)])
        with MessagesServer() as server:
            created = counts(server, body)[1]
            assert counts(server, {**body, **change}) == [created - 1024, 1024, 0]

    def test_automatic_breakpoint_is_the_last(self):
        body = self.prompt(letters("a", 1024), letters("b", 100), cache_control={"type": "ephemeral"})
        with MessagesServer() as server:
            assert counts(server, body) == [0, 1124, 0]
            assert counts(server, body) == [1124, 0, 0]

    def test_image_is_not_counted_by_its_bytes(self):
        image = {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000},
        }
        with MessagesServer() as server:
            assert counts(server, self.prompt(image, letters("a", 100))) == [0, 0, 1700]

    def test_reads_do_not_count_against_the_limit(self):
        body = self.prompt(letters("a", 4000, True))
        with MessagesServer(rate_limit=RateLimit(input_tokens_per_minute=5000)) as server:
            assert [ask(server, body)[0] for _ in range(4)] == [200] * 4


PRICE, WRITE, READING = 3.0, 3.75, 0.3


async def test_moving_breakpoints_cost_a_quarter():
    """20 turns of an agent whose prompt begins with 5,000 tokens and grows by 2,000 in each of them."""
    script = Script([tool_calls(("Read", {"file_path": f"{turn}.txt"})) for turn in range(20)])
    with MessagesServer(answer=script) as server:
        transport = Transport("test-key", server.base_url, 30, True, 10)
        conversation = Conversation.start(json.dumps(TOOLS), ["task"])
        for turn in range(20):
            call = Call("a", ("s" * 20_000,), "task", MODEL, 1000, conversation=conversation)
            reply = await transport.attempt(call, AttemptRecord())
            results = [(one, ToolResult(f"{turn:04d}" * 2000)) for one in tool_uses(reply.content)]
            conversation = conversation.with_answer(reply.content).with_results(results)
        await transport.close()
    usages = [bill.usage for bill in server.bills]
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    fresh, written, read = (sum(usage[name] for usage in usages) for name in names)
    assert len(usages) == 20 and fresh + written + read > 20 * 5000 + 190 * 2000
    paid = fresh * PRICE + written * WRITE + read * READING
    assert paid < 0.25 * (fresh + written + read) * PRICE


async def test_long_conversation_fits_its_budget(project):
    """A turn is reserved for by the tokens that the API has counted, not as if each byte were one."""
    script = Script([*(tool_calls(("Look", {"number": number})) for number in range(10)), "Done."])
    long = Notes(lambda use: asyncio.sleep(0, ToolResult("x" * 40_000)))
    prices = {MODEL: {"input": PRICE, "output": 15.0}}
    limits = {"prices": prices, "budget_usd": 1.8, "enable_cache": False}
    async with fleet(project, {"answer": script}, **limits) as (orchestrator, server):
        orchestrator._calls.tool_runs.open_tools = lambda *_: long
        result = await orchestrator.execute_agent("python-expert", "task", model=MODEL, tools="read")
    assert (result.output, result.stopped_by, len(server.bills)) == ("Done.", None, 11)
    assert result.cost == pytest.approx(sum(cost_of(bill.usage) for bill in server.bills))
    assert result.cost + len(server.requests[-1].raw) * WRITE / 1e6 > 2


async def test_turns_are_paced_by_what_is_new_in_them(project):
    """Tokens that are read from the prompt cache don't count."""
    script = Script([*(tool_calls(("Look", {"number": number})) for number in range(6)), "Done."])
    long, clock = Notes(lambda use: asyncio.sleep(0, ToolResult("x" * 8000))), FakeClock()
    plan = {"answer": script, "rate_limit": RateLimit(None, 50_000), "clock": clock.now}
    limits = {"clock": clock, "max_concurrent": 10, "enable_cache": False}
    async with fleet(project, plan, **limits) as (orchestrator, server):
        orchestrator._calls.tool_runs.open_tools = lambda *_: long
        tasks = [("python-expert", f"Task {number}") for number in range(20)]
        results = await orchestrator.execute_multiple(tasks, model="claude-haiku-4-5", tools="read")
    assert all(result.success for result in results)
    # Nothing was refused with 429.
    assert len(server.requests) == len(server.bills) == 140
    counted = sum(b.usage["input_tokens"] + b.usage["cache_creation_input_tokens"] for b in server.bills)
    read = sum(bill.usage["cache_read_input_tokens"] for bill in server.bills)
    assert read > 2 * counted
    assert clock.time < 1.2 * (counted - 50_000) / 50_000 * 60


def cost_of(usage):
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    rates = (PRICE, WRITE, READING, 15.0)
    return sum(usage[name] * rate for name, rate in zip(names, rates)) / 1e6
