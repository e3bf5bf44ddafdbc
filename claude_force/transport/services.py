"""The services that speak the Messages API: Anthropic's own, Amazon Bedrock, Google Vertex AI."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Type

from .. import settings
from ..errors import (
    AuthenticationError,
    CallError,
    ConnectionFailedError,
    InvalidOptionError,
    ModelNotFoundError,
    PermissionDeniedError,
    RequestRefusedError,
)
from ..formatting import install_command
from .events import AWS_MEDIA_TYPE, EVENTS_MEDIA_TYPE, AwsEventDecoder, EventDecoder, Events
from .network import has_version, is_on_loopback
from .redaction import redact

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True)
class Service:
    """A service that speaks the Messages API.

    Attributes:
        name: as in `settings` and of its extra; "" for Anthropic's own API.
        title: its name in messages.
        client: the SDK's class for it.
        module: what that class needs, from the extra.
        media_type, decoder: of streamed answers.
        counts_tokens: whether it has the endpoint that counts tokens.
        advice: what to do if it refuses credentials.
        example: a model's name there.
    """

    name: str
    title: str
    client: str
    module: str = ""
    media_type: str = EVENTS_MEDIA_TYPE
    decoder: Callable[[], Events] = EventDecoder
    counts_tokens: bool = True
    advice: str = ""
    example: str = ""

    @property
    def is_cloud(self) -> bool:
        """Whether models have names and prices of the cloud's."""
        return bool(self.name)

    @property
    def naming(self) -> str:
        """What to do about a model that it does not have."""
        return f"Name the model as {self.title} does, such as {self.example}."

    def lacks_model(self, model: str, address: Optional[str]) -> bool:
        """Whether it can't have a model of this name. A gateway at the user's `address` may have any."""
        is_api_name = self.name == "bedrock" and model.startswith("claude-")
        return is_api_name and not (address or settings.endpoint(self.name))

    def arguments(self) -> Dict[str, Any]:
        """Arguments for the SDK's client."""
        if not self.is_cloud:
            # Older SDKs don't read them from the environment; newer ones get the same ones twice.
            return {"default_headers": settings.custom_header_fields()}
        region = settings.region(self.name)
        if self.name == "bedrock":
            return {"aws_region": region}
        return {"region": region, "project_id": settings.vertex_project()}

    def advise(self, error: CallError, base_url: str) -> None:
        """Adapts an error's advice to the service."""
        if not self.is_cloud:
            if isinstance(error, ModelNotFoundError) and has_version(base_url):
                error.advice = "Leave the /v1 out of the address (ANTHROPIC_BASE_URL): it is added."
        elif isinstance(error, (AuthenticationError, PermissionDeniedError)):
            # AWS answers 403 to wrong or expired credentials.
            error.advice = self.advice
        elif isinstance(error, (ModelNotFoundError, RequestRefusedError)):
            error.advice = f"{error.advice} {self.naming}"


API = Service("", "Anthropic's API", "AsyncAnthropic")
CLOUDS: Mapping[str, Service] = {
    "bedrock": Service(
        "bedrock",
        "Amazon Bedrock",
        "AsyncAnthropicBedrock",
        "boto3",
        AWS_MEDIA_TYPE,
        AwsEventDecoder,
        False,
        "Give AWS credentials that may invoke the model: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "AWS_PROFILE, or a role.",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    "vertex": Service(
        "vertex",
        "Google Vertex AI",
        "AsyncAnthropicVertex",
        "google.auth",
        advice="Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a "
        "key's file.",
        example="claude-sonnet-4-5@20250929",
    ),
}


def chosen_service(api_key: Optional[str]) -> Service:
    """The service that the environment selects; an explicit key selects Anthropic's API.

    Raises InvalidOptionError if something that a cloud needs is missing.
    """
    names = settings.clouds(api_key)
    if not names:
        return API
    if len(names) > 1:
        switches = " and ".join(map(settings.cloud_switch, names))
        raise InvalidOptionError(f"{switches} are both set: unset one of them.")
    cloud = CLOUDS[names[0]]
    missing = settings.missing_for(cloud.name)
    if missing:
        raise InvalidOptionError(f"{cloud.title} needs {' and '.join(missing)}: set them in the environment.")
    if not _is_installed(cloud.module):
        raise InvalidOptionError(f"{cloud.title} needs {cloud.module}: {install_command(cloud.name)}")
    return cloud


def finds_credentials(cloud: Service, client: Any) -> bool:
    """Whether there are any, found as the cloud's libraries do: in files, and from its servers."""
    if cloud.name == "bedrock":
        # Older SDKs have no API keys for Bedrock.
        if getattr(client, "api_key", None):
            return True
        return importlib.import_module("boto3").Session().get_credentials() is not None
    google = importlib.import_module("google.auth")
    try:
        google.default(scopes=[_SCOPE])
    except google.exceptions.DefaultCredentialsError:
        return False
    return True


def looks_elsewhere(cloud: Service, client: Any) -> bool:
    """Whether credentials would be asked of another machine, such as the cloud's metadata server."""
    if cloud.name == "bedrock":
        return not (getattr(client, "api_key", None) or settings.has_aws_key())
    try:
        content = json.loads(Path(settings.google_credentials_file()).read_text(encoding="utf-8"))
        return content["type"] != "service_account" or not is_on_loopback(content["token_uri"])
    except (OSError, ValueError, LookupError, TypeError):
        return True


def lookup_error(cloud: Service, error: BaseException) -> Optional[CallError]:
    """The CallError for an error of a search for credentials; None for any other."""
    reason = redact(str(error)) or type(error).__name__
    if isinstance(error, _named(("google.auth.exceptions", "TransportError"), *_AWS_NETWORK)) or (
        isinstance(error, _named(("google.auth.exceptions", "GoogleAuthError"))) and error.retryable
    ):
        return ConnectionFailedError(f"Credentials for {cloud.title} could not be asked for: {reason}")
    if isinstance(error, _named(*_LOOKUPS)) or "ould not resolve" in str(error):
        return AuthenticationError(f"No credentials were found for {cloud.title}: {reason}")
    return None


_AWS_NETWORK = (("botocore.exceptions", "HTTPClientError"),)
_LOOKUPS = (("botocore.exceptions", "BotoCoreError"), ("google.auth.exceptions", "GoogleAuthError"))


def _named(*places: Tuple[str, str]) -> Tuple[Type[Any], ...]:
    return tuple(getattr(importlib.import_module(one), name) for one, name in places if _is_installed(one))


def _is_installed(module: str) -> bool:
    parent = module.rpartition(".")[0]
    return bool(not parent or _is_installed(parent)) and find_spec(module) is not None
