"""What identifies a request: who answers it, and the policies of the cache by their names."""

import hashlib
import os

import pytest

from claude_force.cache.request_key import (
    OFF,
    REFRESH,
    USE,
    RequestKey,
    check_policy,
    request_key,
    service_fields,
)
from claude_force.conversation import ContentBlock, Conversation
from claude_force.errors import InvalidOptionError
from claude_force.types import Call


def digest(*parts):
    return hashlib.sha256(b"".join(f"{len(part)}:{part}".encode() for part in parts)).hexdigest()


def test_refuses_unknown_policy():
    for policy in ("use", "refresh", "off"):
        check_policy(policy)
    assert (USE, REFRESH, OFF) == ("use", "refresh", "off")
    with pytest.raises(InvalidOptionError) as raised:
        check_policy("on")
    assert str(raised.value) == "cache is 'on'; choose one of use, refresh, off."


def test_digest_of_key():
    key = RequestKey("a", "t", "m", {"z": "1", "b": "2"})
    assert key.fields() == ("a", "t", "m", (("b", "2"), ("z", "1")))
    assert key.digest().hex() == digest("a", "t", "m", "b", "2", "z", "1")[:32]


def test_stored_keys_stay_valid():
    call = Call(
        "writer", ("You write.", "Be brief."), "Write é", "claude-sonnet-5-5", 4096, {"temperature": 0.5}
    )
    key = request_key(call, (("endpoint", "http://one"),))
    # As the first version has stored it.
    assert key.digest().hex() == "0631a3831a38620d2973dd0805a9978e"


class TestConversation:
    START = Conversation.start('[{"name": "Read"}]', ["task"])

    def key(self, conversation):
        return request_key(Call("a", (), "task", "m", 5, conversation=conversation), ())

    def test_is_told_apart(self):
        more = self.START.with_answer([ContentBlock("text", '{"type": "text", "text": "a"}')])
        different = [None, self.START, more, self.START.without_calls(), Conversation.start("[]", ["task"])]
        assert len({self.key(one).digest() for one in different}) == len(different)

    def test_stored_key_stays_valid(self):
        # As the first version with tools has stored it.
        assert self.key(self.START).digest().hex() == "0a989d5104d413a1e5925c50c675bb1a"

    def test_same_one_has_the_same_key(self):
        again = Conversation.start('[{"name": "Read"}]', ["task"])
        assert self.key(again) == self.key(self.START)
        assert self.key(Conversation.from_fields(self.START.to_fields())) == self.key(self.START)


class TestEndpoint:
    def test_given_address_comes_first(self, monkeypatch):
        assert service_fields("k", None) == (("endpoint", ""),)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://X/")
        assert service_fields("k", None) == (("endpoint", "http://X"),)
        assert service_fields("k", "/http://one//") == (("endpoint", "/http://one"),)

    def test_names_each_cloud(self, monkeypatch):
        for name, value in (
            ("CLAUDE_CODE_USE_BEDROCK", "1"),
            ("CLAUDE_CODE_USE_VERTEX", "1"),
            ("AWS_REGION", "eu-1"),
            ("AWS_PROFILE", "work"),
            ("ANTHROPIC_BEDROCK_BASE_URL", "/http://AX//"),
            ("CLOUD_ML_REGION", "us-2"),
            ("ANTHROPIC_VERTEX_PROJECT_ID", "project"),
            ("ANTHROPIC_PROFILE", "ignored"),
        ):
            monkeypatch.setenv(name, value)
        fields = "bedrock /http://AX eu-1 work vertex us-2 project"
        assert service_fields(None, None) == (("endpoint", fields),)
        fields = "bedrock http://one eu-1 work vertex http://one us-2 project"
        assert service_fields(None, "http://one/") == (("endpoint", fields),)
        # A given key selects Anthropic's API.
        assert service_fields("k", "http://one/") == (("endpoint", "http://one"),)


class TestHeaders:
    def test_are_hashed_in_order_of_names(self, monkeypatch):
        monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", " X-B : a:b c \nno header\nX-a:1\n")
        headers = ("headers", digest("x-a", "1", "x-b", "a:b c"))
        assert service_fields("k", "u") == (("endpoint", "u"), headers)
        assert service_fields(None, "u")[:2] == (("endpoint", "u"), headers)


class TestProfile:
    @pytest.fixture
    def folder(self, clean_environment):
        folder = clean_environment / ".config" / "anthropic"
        (folder / "configs").mkdir(parents=True)
        return folder

    def profile(self):
        """The fields of the profile alone."""
        endpoint, *others = service_fields(None, "u")
        assert endpoint == ("endpoint", "u")
        return tuple(others)

    def test_missing_default_is_none(self):
        assert self.profile() == ()

    def test_default_by_its_text(self, folder):
        (folder / "configs" / "default.json").write_text("{}")
        assert self.profile() == (("profile", digest("default", "{}")),)
        assert service_fields("k", "u") == (("endpoint", "u"),)

    def test_key_of_environment_hides_profile(self, folder, monkeypatch):
        (folder / "configs" / "default.json").write_text("{}")
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "t")
        assert self.profile() == ()

    def test_active_profile(self, folder):
        (folder / "active_config").write_text("work\n")
        assert self.profile() == (("profile", digest("work", "")),)
        (folder / "configs" / "work.json").write_text("{1}")
        assert self.profile() == (("profile", digest("work", "{1}")),)

    def test_named_profile_comes_first(self, folder, monkeypatch):
        (folder / "active_config").write_text("work")
        monkeypatch.setenv("ANTHROPIC_PROFILE", "mine")
        monkeypatch.setenv("ANTHROPIC_ORGANIZATION_ID", "o")
        assert self.profile() == (("profile", digest("mine", "")),)

    def test_workload_by_its_ids(self, folder, monkeypatch):
        (folder / "configs" / "default.json").write_text("{}")
        monkeypatch.setenv("ANTHROPIC_ORGANIZATION_ID", "o")
        assert self.profile() == (("profile", digest("", "o", "", "")),)

    def test_profile_without_home(self, monkeypatch):
        def unknown(uid):
            raise KeyError(uid)

        monkeypatch.setattr(pytest.importorskip("pwd"), "getpwuid", unknown)
        monkeypatch.delenv("HOME")
        assert self.profile() == ()
        monkeypatch.setenv("ANTHROPIC_PROFILE", "mine")
        assert self.profile() == (("profile", "mine"),)

    def test_reads_beginning_of_large_file(self, folder):
        (folder / "configs" / "default.json").write_bytes(b"\xff" + b"x" * 2**16)
        assert self.profile() == (("profile", digest("default", "\ufffd" + "x" * (2**16 - 1))),)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
    def test_reads_regular_files_only(self, folder):
        os.mkfifo(folder / "active_config")
        assert self.profile() == ()
        os.mkfifo(folder / "configs" / "default.json")
        assert self.profile() == ()

    @pytest.mark.parametrize("kept", ["inode and time", "inode and size", "time and size"])
    def test_reads_changed_file_again(self, folder, kept):
        path = folder / "configs" / "default.json"
        path.write_text("one")
        os.utime(path, ns=(10**18, 10**18))
        assert self.profile() == (("profile", digest("default", "one")),)
        changed = path if "inode" in kept else folder / "other"
        text = "two" if "size" in kept else "three"
        changed.write_text(text)
        moment = 10**18 if "time" in kept else 2 * 10**18
        os.utime(changed, ns=(moment, moment))
        changed.replace(path)
        assert self.profile() == (("profile", digest("default", text)),)
