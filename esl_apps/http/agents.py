"""An integrator's agents: whether they are there, and tokens for their own browsers."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import falcon

from esl_apps.core.faults import Fault, Refused
from esl_apps.http import agent_tokens
from esl_apps.http.access import CALL, OWN_CALL
from esl_apps.http.body import answer, read_json
from esl_apps.http.calls_port import CallsPort
from esl_apps.http.parameters import in_path
from esl_apps.http.routes import Answer, Operation, Route
from esl_apps.http.schemas import Agent, AgentToken, AgentTokenOrder

log = logging.getLogger(__name__)


def get_agent(port: CallsPort, req: falcon.Request, resp: falcon.Response, agent: str) -> None:
    """``GET …/agents/EXT``: whether a phone of this extension is registered, and whether it is in a call."""
    port.check_agent(req, agent)
    extension = port.client.extension(agent)
    found = port.presence(extension, with_calls=True)
    resp.set_header("Cache-Control", "no-store")
    answer(resp, 200, Agent(extension.dialled, found.registered, found.state, found.calls))


def create_token(port: CallsPort, req: falcon.Request, resp: falcon.Response, agent: str) -> None:
    """``POST …/agents/AGENT/token``: a token that opens the calls of this agent, and nothing else."""
    _raw, fields = read_json(req)
    issuer = port.token(req)
    granted = [scope for scope in agent_tokens.SCOPES if issuer.scopes is None or scope in issuer.scopes]
    seconds, scopes = fields.get("expires_in", agent_tokens.LONGEST), fields.get("scopes", granted)
    faults = [*_unknown(fields), *port.client.agent_faults(agent)]
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= agent_tokens.LONGEST:
        faults.append(Fault("expires_in", "range", f"expected whole seconds from 1 to {agent_tokens.LONGEST}"))
    if not isinstance(scopes, list) or not scopes or any(scope not in granted for scope in scopes):
        faults.append(Fault("scopes", "value", f"expected a list of {', '.join(granted)}"))
    if faults:
        raise Refused(faults)
    # As their calls will name them.
    agent = port.client.agent(agent)
    expires = int(time.time()) + seconds
    log.info("agent_token_issued", extra={"agent": agent, "token": issuer.name, "seconds": seconds})
    resp.set_header("Cache-Control", "no-store")
    answer(resp, 200, AgentToken(port.agent_tokens.issue(issuer, agent, scopes, expires), expires))


def _unknown(fields: Mapping[str, Any]) -> list[Fault]:
    expected = ("expires_in", "scopes")
    return [
        Fault(field[:64], "unknown", f"unknown field; expected {', '.join(expected)}")
        for field in fields
        if field not in expected
    ]


_AGENT = in_path("agent", {"type": "string", "maxLength": 64})

ROUTES = (
    Route(
        "/click2dial/agents/{agent}",
        (
            Operation(
                "GET",
                "getAgent",
                "Whether an agent's phone is registered, and in a call, as all switches know it now",
                get_agent,
                scopes=(CALL, OWN_CALL),
                parameters=(_AGENT,),
                answers={200: Answer("The agent", Agent)},
                errors=(401, 403, 422, 429),
            ),
        ),
    ),
    Route(
        "/click2dial/agents/{agent}/token",
        (
            Operation(
                "POST",
                "createAgentToken",
                "A token for one agent's browser: it opens the calls of that agent, for 15 minutes at most",
                create_token,
                scopes=(CALL,),
                parameters=(_AGENT,),
                body=AgentTokenOrder,
                answers={200: Answer("The token", AgentToken)},
                errors=(400, 401, 403, 413, 415, 422, 429),
            ),
        ),
    ),
)
