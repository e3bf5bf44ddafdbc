"""Sends calls to the Messages API, over aiohttp or through the official SDK, and reads the answers.

`transport` makes one attempt. It chooses a sender, `http` or `sdk`, which share the protocol in `protocol`
and the connection pool. The wire format is in `request`, `events`, `messages` and `usage`. `services` says
how the API and the clouds differ, `error_mapping` what an error answer means, `redaction` what must not be
shown, and `network` what connections depend on.
"""
