"""Calls over Amazon Bedrock and Google Vertex AI, each through the SDK's own client, against stand-ins."""

import inspect
import json
import logging
import re
import sys
import traceback

import clouds
import extras
import pytest
from clouds import CloudServer, aws_error, exception_frame, first_frames, google_error, streamed
from fleet import FakeClock, write_project

from claude_force import AsyncAgentOrchestrator
from claude_force.cli.main import main
from claude_force.conversation import Conversation
from claude_force.errors import (
    AuthenticationError,
    BadReplyError,
    ConnectionFailedError,
    InvalidOptionError,
    PaidCallBlockedError,
    PermissionDeniedError,
    RequestRefusedError,
    SilenceError,
)
from claude_force.formatting import install_command
from claude_force.limits.call_context import CallContext, CallListener
from claude_force.limits.prices import cost
from claude_force.testing import MessagesServer
from claude_force.transport import services as product
from claude_force.transport.protocol import AttemptRecord
from claude_force.transport.transport import Transport
from claude_force.types import Call, Usage

MODELS = {
    "bedrock": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "vertex": "claude-sonnet-4-5@20250929",
}
PRICES = {model: {"input": 1000.0, "output": 3000.0} for model in MODELS.values()}


@pytest.fixture(scope="session")
def google_key(tmp_path_factory):
    """Makes the file of a service account whose tokens come from `url`."""
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa", reason="no cryptography")
    from cryptography.hazmat.primitives import serialization as form

    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()).decode()

    def make(url):
        path = tmp_path_factory.mktemp("google") / "key.json"
        fields = {"type": "service_account", "client_email": "test@example.com", "private_key_id": "1"}
        fields.update(private_key=pem, token_uri=f"{url}/token", project_id="the-files-own")
        path.write_text(json.dumps(fields))
        return str(path)

    return make


@pytest.fixture
def use(monkeypatch, request):
    """Has the environment ask for a cloud, at this server."""

    def set_up(name, server):
        if extras.missing(name):
            pytest.skip(extras.missing(name))
        for other in MODELS:
            monkeypatch.delenv(f"CLAUDE_CODE_USE_{other.upper()}", raising=False)
        variables = {f"CLAUDE_CODE_USE_{name.upper()}": "1"}
        if name == "bedrock":
            variables.update(AWS_REGION=clouds.REGION, ANTHROPIC_BEDROCK_BASE_URL=server.url)
            variables.update(AWS_ACCESS_KEY_ID=clouds.AWS_KEY, AWS_SECRET_ACCESS_KEY=clouds.AWS_SECRET)
            variables.update(AWS_SESSION_TOKEN=clouds.AWS_TOKEN)
        else:
            variables.update(CLOUD_ML_REGION="europe-west1", ANTHROPIC_VERTEX_PROJECT_ID="my-project")
            variables["ANTHROPIC_VERTEX_BASE_URL"] = f"{server.url}/v1"
            variables["GOOGLE_APPLICATION_CREDENTIALS"] = request.getfixturevalue("google_key")(server.url)
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)

    return set_up


@pytest.fixture(params=list(MODELS))
def cloud(request):
    return request.param


def orchestrator(folder, **limits):
    config = folder / ".claude" / "claude.json"
    if not config.exists():
        write_project(folder)
    return AsyncAgentOrchestrator(config, **{"clock": FakeClock(), **limits})


class Listener(CallListener):
    def __init__(self):
        self.pieces = []

    def wrote(self, text):
        self.pieces.append(text)


async def ask(engine, cloud, task="Explain", **options):
    return await engine.execute_agent("python-expert", task, model=MODELS[cloud], **options)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_is_answered(cloud, use, tmp_path, stream):
    with CloudServer() as server:
        use(cloud, server)
        async with orchestrator(tmp_path, stream=stream) as engine:
            result = await ask(engine, cloud)
        assert result.success, result.error
        assert (result.output, result.attempts) == (clouds.TEXT, 1)
        assert server.seen[0].model == MODELS[cloud]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_conversation_is_answered(cloud, use, stream):
    tools = [{"name": "Read", "description": "Reads.", "input_schema": {"type": "object"}}]
    conversation = Conversation.start(json.dumps(tools), ["the task"])
    call = Call("a", (), "the task", MODELS[cloud], 99, conversation=conversation)
    with CloudServer() as server:
        use(cloud, server)
        opened = Transport(None, None, 30, stream, 10)
        reply = await opened.attempt(call, AttemptRecord())
        await opened.close()
    assert server.seen[0].body["tools"] == tools
    control = {"type": "ephemeral"}
    block = {"type": "text", "text": "the task", "cache_control": control}
    assert server.seen[0].body["messages"] == [{"role": "user", "content": [block]}]
    assert [json.loads(one.json) for one in reply.content] == clouds.BLOCKS


async def test_vertex_project_and_region(use, tmp_path):
    with CloudServer() as server:
        use("vertex", server)
        async with orchestrator(tmp_path) as engine:
            await ask(engine, "vertex")
        assert server.seen[0].path.startswith("/v1/projects/my-project/locations/europe-west1/")


async def test_streams_piece_by_piece(cloud, use, tmp_path):
    listener = Listener()
    with CloudServer() as server:
        use(cloud, server)
        async with orchestrator(tmp_path) as engine:
            await engine._calls.execute(
                CallContext(listener=listener), "python-expert", "Explain", model=MODELS[cloud]
            )
    assert len(listener.pieces) > 1
    assert "".join(listener.pieces) == clouds.TEXT


async def test_usage_and_cost(cloud, use, tmp_path):
    with CloudServer() as server:
        use(cloud, server)
        async with orchestrator(tmp_path, prices=PRICES) as engine:
            result = await ask(engine, cloud)
    assert (result.usage.input_tokens, result.usage.output_tokens) == (20, 10)
    assert result.cost == pytest.approx((20 * 1000 + 10 * 3000) / 1e6)


async def test_signs_each_request(cloud, use, tmp_path):
    with CloudServer() as server:
        use(cloud, server)
        async with orchestrator(tmp_path) as engine:
            for number in range(3):
                result = await ask(engine, cloud, f"Task {number}")
                assert result.success, result.error
        assert all(seen.headers["authorization"] for seen in server.seen)
        signatures = {seen.headers["authorization"] for seen in server.seen}
        assert len(signatures) == (3 if cloud == "bedrock" else 1)


async def test_answers_many_at_once(cloud, use, tmp_path):
    with CloudServer() as server:
        use(cloud, server)
        async with orchestrator(tmp_path, max_concurrent=20) as engine:
            tasks = [("python-expert", f"Task {number}") for number in range(40)]
            results = await engine.execute_multiple(tasks, model=MODELS[cloud])
        assert [result.error for result in results] == [None] * 40
        assert len(server.seen) == 40


async def test_bedrock_api_key(use, tmp_path, monkeypatch):
    import anthropic

    if "api_key" not in inspect.signature(anthropic.AsyncAnthropicBedrock).parameters:
        pytest.skip("this SDK takes no such key")
    with CloudServer() as server:
        use("bedrock", server)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "key-of-bedrock")
        async with orchestrator(tmp_path) as engine:
            assert (await ask(engine, "bedrock")).success
        assert server.seen[0].headers["authorization"] == "Bearer key-of-bedrock"


async def test_silent_service(cloud, use, tmp_path):
    with CloudServer(clouds.SILENCE) as server:
        use(cloud, server)
        async with orchestrator(tmp_path, timeout_seconds=1, max_retries=1, deadline_seconds=20) as engine:
            error = (await ask(engine, cloud)).error
    assert type(error) is SilenceError


async def test_refused_google_token(use, tmp_path):
    with CloudServer(refuses_tokens=True) as server:
        use("vertex", server)
        async with orchestrator(tmp_path) as engine:
            error = (await ask(engine, "vertex")).error
        assert type(error) is AuthenticationError
        assert "invalid_grant" in str(error)
        assert "gcloud" in str(error)
        assert server.seen == []


async def test_what_an_sdk_refuses_is_typed(use, tmp_path):
    with CloudServer() as server:
        use("bedrock", server)
        async with orchestrator(tmp_path) as engine:
            # No ASCII, so it can't be signed.
            with pytest.raises(InvalidOptionError, match="The SDK can't send this: 'ascii'"):
                await ask(engine, "bedrock", extra_headers={"x": "\u00e9"})
        assert server.seen == []


def test_bedrock_prices():
    prices = pytest.importorskip("genai_prices", reason="there is no price list for this Python")
    model, usage = "us.anthropic.claude-sonnet-4-5-20250929-v1:0", Usage(1000, 1000)
    listed = prices.calc_price(
        prices.Usage(input_tokens=1000, output_tokens=1000), model_ref=model, provider_id="aws"
    )
    assert cost(model, usage) == pytest.approx(float(listed.total_price))


async def test_signs_inference_profile(use, tmp_path):
    profile = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc"
    with CloudServer() as server:
        use("bedrock", server)
        async with orchestrator(tmp_path) as engine:
            result = await engine.execute_agent("python-expert", "Explain", model=profile)
        assert result.success, result.error
        # Which model is behind it, and at what price, only AWS knows.
        assert (server.seen[0].model, result.cost) == (profile, None)


THROTTLED = {
    "bedrock": aws_error(429, "ThrottlingException", "Too many requests"),
    "vertex": google_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded"),
}
UNAVAILABLE = {
    "bedrock": aws_error(503, "ServiceUnavailableException", "Try again"),
    "vertex": google_error(503, "UNAVAILABLE", "Try again"),
}
INVALID = {
    "bedrock": aws_error(400, "ValidationException", "The provided model identifier is invalid."),
    "vertex": google_error(400, "FAILED_PRECONDITION", "The provided model identifier is invalid."),
}


@pytest.mark.parametrize("answers", [THROTTLED, UNAVAILABLE])
async def test_what_passes_is_tried_again(cloud, use, tmp_path, answers):
    with CloudServer(answers[cloud]) as server:
        use(cloud, server)
        async with orchestrator(tmp_path) as engine:
            result = await ask(engine, cloud)
        assert (result.success, result.attempts, len(server.seen)) == (True, 2, 2)


async def test_quotes_refusal(cloud, use, tmp_path):
    with CloudServer(INVALID[cloud]) as server:
        use(cloud, server)
        async with orchestrator(tmp_path) as engine:
            error = (await ask(engine, cloud)).error
        assert type(error) is RequestRefusedError
        assert (error.status, len(server.seen)) == (400, 1)
        assert error.kind == {"bedrock": "ValidationException", "vertex": "FAILED_PRECONDITION"}[cloud]
        assert "model identifier is invalid" in str(error)


async def test_wrong_credentials_advice(cloud, use, tmp_path):
    kind = {"bedrock": PermissionDeniedError, "vertex": AuthenticationError}[cloud]
    refused = {
        "bedrock": aws_error(403, "UnrecognizedClientException", "The security token is invalid"),
        "vertex": google_error(401, "UNAUTHENTICATED", "Invalid token"),
    }[cloud]
    with CloudServer(refused) as server:
        use(cloud, server)
        async with orchestrator(tmp_path) as engine:
            error = (await ask(engine, cloud)).error
    assert type(error) is kind
    assert {"bedrock": "AWS_PROFILE", "vertex": "gcloud"}[cloud] in str(error)
    assert "ANTHROPIC_API_KEY" not in str(error)


HEADERS = ("authorization", "x-amz-security-token")


async def test_hides_repeated_credentials(cloud, use, tmp_path, caplog):
    class Echo(CloudServer):
        def __init__(self):
            super().__init__()
            self.plan = self

        def pop(self, _):
            given, token = (self.seen[-1].headers.get(name, "-") for name in HEADERS)
            bare = given.rpartition(" ")[2].rpartition("Signature=")[2]
            text = f"Sent: {given}, x-amz-security-token:{token}; that is {bare} and {token}"
            return aws_error(400, "ValidationException", text)

    caplog.set_level(logging.DEBUG, "claude_force")
    with Echo() as server:
        use(cloud, server)
        async with orchestrator(tmp_path) as engine:
            result = await ask(engine, cloud)
        signature = server.seen[0].headers["authorization"].rpartition(" ")[2].rpartition("Signature=")[2]
        reported = "".join(
            traceback.format_exception(type(result.error), result.error, result.error.__traceback__)
        )
        reported += caplog.text + repr(result) + str(result.error) + repr(engine.__dict__)
    assert "Sent: " in reported
    for secret in (signature, clouds.AWS_SECRET, clouds.AWS_TOKEN):
        assert secret not in reported


async def test_caches_answers(cloud, use, tmp_path):
    with CloudServer() as server:
        use(cloud, server)
        async with orchestrator(tmp_path) as engine:
            await ask(engine, cloud)
            assert (await ask(engine, cloud)).cached
        assert len(server.seen) == 1


async def test_caches_per_service(use, tmp_path):
    with CloudServer() as server:
        for name in (*MODELS, "vertex"):
            use(name, server)
            async with orchestrator(tmp_path, base_url=f"{server.url}/v1") as engine:
                result = await engine.execute_agent("python-expert", "Explain", model="claude-opus-4-6")
                assert result.success, result.error
        assert result.cached
        assert ["/publishers/" in seen.path for seen in server.seen] == [False, True]


class TestStreamsOfBedrock:
    async def ask(self, use, folder, *plan):
        with CloudServer(*plan) as server:
            use("bedrock", server)
            async with orchestrator(folder, prices=PRICES) as engine:
                return await ask(engine, "bedrock")

    async def test_retries_throttled_stream(self, use, tmp_path):
        cut = streamed(*first_frames(5), exception_frame("throttlingException", "Too many tokens"))
        result = await self.ask(use, tmp_path, cut)
        assert (result.success, result.attempts, result.output) == (True, 2, clouds.TEXT)
        assert result.cost > (20 * 1000 + 10 * 3000) / 1e6

    async def test_error_within_stream(self, use, tmp_path):
        cut = streamed(exception_frame("validationException", "Not this one"))
        error = (await self.ask(use, tmp_path, cut)).error
        assert (type(error), error.status) == (RequestRefusedError, 400)
        assert "Not this one" in str(error)
        assert error.request_id == "aws-request-1"

    async def test_truncated_stream(self, use, tmp_path):
        error = (await self.ask(use, tmp_path, *[streamed(*first_frames(5))] * 3)).error
        assert type(error) is ConnectionFailedError
        assert error.attempts == 3

    async def test_wrong_checksum(self, use, tmp_path):
        bad = bytearray(first_frames(1)[0])
        bad[-1] ^= 1
        assert type((await self.ask(use, tmp_path, streamed(bytes(bad)))).error) is BadReplyError


class TestChoice:
    async def test_refuses_two_clouds(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CLAUDE_CODE_USE_BEDROCK", "1")
        monkeypatch.setenv("CLAUDE_CODE_USE_VERTEX", "1")
        switches = "CLAUDE_CODE_USE_BEDROCK and CLAUDE_CODE_USE_VERTEX are both set"
        async with orchestrator(tmp_path) as engine:
            with pytest.raises(InvalidOptionError, match=switches):
                await ask(engine, "bedrock")

    @pytest.mark.parametrize(
        ("name", "variables"),
        [("bedrock", ["AWS_REGION"]), ("vertex", ["CLOUD_ML_REGION", "ANTHROPIC_VERTEX_PROJECT_ID"])],
    )
    async def test_names_missing_variables(self, name, variables, monkeypatch):
        monkeypatch.setenv(f"CLAUDE_CODE_USE_{name.upper()}", "1")
        with pytest.raises(InvalidOptionError, match=" and ".join(variables)):
            product.chosen_service(None)

    async def test_names_missing_package(self, cloud, monkeypatch):
        # As for Python where a package is not installed.
        monkeypatch.setitem(sys.modules, product.CLOUDS[cloud].module, None)
        for name in ("AWS_REGION", "CLOUD_ML_REGION", "ANTHROPIC_VERTEX_PROJECT_ID"):
            monkeypatch.setenv(name, "some")
        monkeypatch.setenv(f"CLAUDE_CODE_USE_{cloud.upper()}", "1")
        with pytest.raises(InvalidOptionError, match=re.escape(install_command(cloud))):
            product.chosen_service(None)

    @pytest.mark.parametrize("value", ["", "0", "false"])
    def test_switch_off(self, value, monkeypatch):
        monkeypatch.setenv("CLAUDE_CODE_USE_BEDROCK", value)
        assert product.chosen_service(None) is product.API

    async def test_given_key_selects_the_api(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CLAUDE_CODE_USE_BEDROCK", "1")
        with MessagesServer() as server:
            async with orchestrator(tmp_path, api_key="test-key", base_url=server.base_url) as engine:
                assert (await engine.execute_agent("python-expert", "Explain")).success
            sent = server.requests[0].headers
            assert "test-key" in (sent.get("x-api-key"), sent.get("authorization", "").partition(" ")[2])


class TestSwitchAgainstPaidCalls:
    @pytest.mark.parametrize("variable", ["ANTHROPIC_BEDROCK_BASE_URL", "ANTHROPIC_VERTEX_BASE_URL"])
    async def test_forbids_cloud_addresses(self, variable, use, tmp_path, monkeypatch):
        name = variable.split("_")[1].lower()
        with CloudServer() as server:
            use(name, server)
            monkeypatch.delenv(variable)
            async with orchestrator(tmp_path) as engine:
                error = (await ask(engine, name)).error
        assert type(error) is PaidCallBlockedError
        assert ("amazonaws.com" if name == "bedrock" else "googleapis.com") in str(error)

    async def test_forbids_credential_requests(self, cloud, use, tmp_path, monkeypatch):
        with CloudServer() as server:
            use(cloud, server)
            for name in ("AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"):
                monkeypatch.delenv(name, raising=False)
            async with orchestrator(tmp_path) as engine:
                error = (await ask(engine, cloud)).error
            assert type(error) is PaidCallBlockedError
            assert "Credentials" in str(error)
            assert server.seen == []


class TestAliases:
    """What `sonnet` means in a cloud, the environment has to say."""

    @pytest.fixture
    def bedrock(self, use, monkeypatch):
        with CloudServer() as server:
            use("bedrock", server)
            # At an address of the user's own, any name may be known.
            monkeypatch.delenv("ANTHROPIC_BEDROCK_BASE_URL")
            yield

    @pytest.mark.parametrize("model", [None, "opus", "claude-sonnet-5-5"])
    async def test_refuses_foreign_names(self, bedrock, tmp_path, model):
        async with orchestrator(tmp_path) as engine:
            with pytest.raises(InvalidOptionError, match="Amazon Bedrock has no model 'claude-") as refused:
                await engine.execute_agent("python-expert", "Explain", model=model)
        variable = "OPUS" if model == "opus" else "SONNET"
        assert f"ANTHROPIC_DEFAULT_{variable}_MODEL" in str(refused.value)
        assert "us.anthropic.claude-sonnet-4-5-20250929-v1:0" in str(refused.value)

    async def test_sends_model_of_variable(self, cloud, use, tmp_path, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_DEFAULT_SONNET_MODEL", MODELS[cloud])
        with CloudServer() as server:
            use(cloud, server)
            async with orchestrator(tmp_path) as engine:
                assert (await engine.execute_agent("python-expert", "Explain")).success
            assert server.seen[0].model == MODELS[cloud]

    async def test_gateway_takes_any_name(self, use, tmp_path):
        with CloudServer() as server:
            use("bedrock", server)
            async with orchestrator(tmp_path) as engine:
                assert (await engine.execute_agent("python-expert", "Explain")).success
            assert server.seen[0].model == "claude-sonnet-5-5"

    async def test_refused_name_has_example(self, cloud, use, tmp_path):
        with CloudServer(INVALID[cloud]) as server:
            use(cloud, server)
            async with orchestrator(tmp_path) as engine:
                error = (await engine.execute_agent("python-expert", "Explain")).error
            assert MODELS[cloud] in str(error)
            assert len(server.seen) == 1


class TestDoctor:
    @pytest.fixture
    def aliases(self, workplace, monkeypatch, capsys):
        """What the doctor finds about models where an agent asks for haiku, and one for the default."""

        def found(**environment):
            for name, value in {"AWS_REGION": "us-west-2", **environment}.items():
                monkeypatch.setenv(name, value)
            main(["doctor", "--json", "--offline"])
            checks = json.loads(capsys.readouterr().out)["checks"]
            texts = [(one["state"], one["text"], one["advice"]) for one in checks if one["name"] == "model"]
            return [one for one in texts if "ANTHROPIC_DEFAULT" in one[1]]

        return found

    def test_bedrock_alias_is_problem(self, aliases):
        (sonnet, haiku) = sorted(aliases(CLAUDE_CODE_USE_BEDROCK="1"), reverse=True)
        assert haiku[:2] == (
            "problem",
            "ANTHROPIC_DEFAULT_HAIKU_MODEL is not set, so that Amazon Bedrock is asked for claude-haiku-5-5 "
            "by code-reviewer",
        )
        assert sonnet[1].startswith("ANTHROPIC_DEFAULT_SONNET_MODEL is not set")
        assert MODELS["bedrock"] in sonnet[2]

    def test_vertex_alias_is_warning(self, aliases):
        found = aliases(CLAUDE_CODE_USE_VERTEX="1")
        assert [state for state, _, _ in found] == ["warning", "warning"]
        assert MODELS["vertex"] in found[0][2]

    def test_alias_with_variable_is_fine(self, aliases):
        said = {
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": MODELS["bedrock"],
            "ANTHROPIC_MODEL": MODELS["bedrock"],
        }
        assert aliases(CLAUDE_CODE_USE_BEDROCK="1", **said) == []

    @pytest.mark.parametrize("said", ["ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_SONNET_MODEL"])
    def test_foreign_name_is_problem(self, workplace, monkeypatch, capsys, said):
        cloud = {"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_REGION": "us-west-2"}
        for name, value in {**cloud, said: "claude-sonnet-5-5"}.items():
            monkeypatch.setenv(name, value)
        assert main(["doctor", "--json", "--offline"]) == 1
        checks = json.loads(capsys.readouterr().out)["checks"]
        (found,) = [one for one in checks if "has no model" in one["text"]]
        assert (found["name"], found["state"]) == ("model", "problem")
        assert "'claude-sonnet-5-5'; it is the model of " in found["text"]
        assert MODELS["bedrock"] in found["advice"]

    def test_ignores_aliases_without_cloud(self, aliases):
        assert aliases() == []

    def test_sends_no_foreign_model(self, use, workplace, monkeypatch, capsys):
        with CloudServer() as server:
            use("bedrock", server)
            monkeypatch.delenv("ANTHROPIC_BEDROCK_BASE_URL")
            found = self.found(capsys, "--send")
        assert found["request"]["state"] == "problem"
        assert "has no model" in found["request"]["text"]

    def found(self, capsys, *options):
        main(["doctor", "--json", *options])
        return {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}

    def test_names_the_cloud(self, cloud, use, workplace, capsys):
        with CloudServer() as server:
            use(cloud, server)
            found = self.found(capsys, "--model", MODELS[cloud], "--send")
        title = {"bedrock": "Amazon Bedrock", "vertex": "Google Vertex AI"}[cloud]
        assert (found["credentials"]["state"], found["request"]["state"]) == ("ok", "ok")
        assert title in found["credentials"]["text"]
        assert server.url in found["endpoint"]["text"]
        assert found["endpoint"]["state"] == "ok"

    def test_sends_nothing_without_send(self, use, workplace, capsys):
        with CloudServer() as server:
            use("bedrock", server)
            found = self.found(capsys, "--model", MODELS["bedrock"])
            assert (found["endpoint"]["state"], server.seen) == ("ok", [])

    @pytest.mark.parametrize("options", [(), ("--offline",)])
    def test_says_what_is_missing(self, options, workplace, monkeypatch, capsys):
        monkeypatch.setenv("CLAUDE_CODE_USE_BEDROCK", "1")
        found = self.found(capsys, *options)["credentials"]
        assert found["state"] == "problem"
        assert "AWS_REGION" in found["text"] + found["advice"]
