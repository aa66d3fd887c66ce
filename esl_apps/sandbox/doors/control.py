"""The control port: phones, routes and gateways as JSON over HTTP, for tests and for a person with curl."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs, unquote

import gevent
from gevent.pywsgi import WSGIServer

from esl_apps.sandbox.phones.gateway import Gateway
from esl_apps.sandbox.phones.phone import Dialog, Phone
from esl_apps.sandbox.phones.script import Script
from esl_apps.sandbox.run.sleeper import at_most
from esl_apps.sandbox.switch import Switch
from esl_apps.sandbox.wire import causes

USAGE = """\
The sandbox's control port. Bodies and answers are JSON; times are seconds.

GET    /                                    this text
GET    /status                              channels, listeners, phones, routes, gateways
GET    /channels                            live channels
POST   /api            {"command": "show channels"}     what fs_cli -x prints
POST   /phones/NUMBER  {"script": {...}, "registrations": 1, "outside": false}
                       define a phone, or give a known one a new script (its calls are forgotten)
PATCH  /phones/NUMBER  {"script": {...}}    from now on; its calls are kept
GET    /phones/NUMBER                       its script and calls
DELETE /phones/NUMBER                       unregister
POST   /phones/NUMBER/dial {"number": "27115550000", "headers": {"X-A": "b"}, "context": null, "codecs": ["G729"]}
POST   /phones/NUMBER/dead                  one more registration, whose phone is gone
POST   /phones/NUMBER/answer | hangup       its latest live call
POST   /phones/NUMBER/reject {"status": 486}
GET    /calls/CALL                          one call of a phone
GET    /calls/CALL/hears?hz=350,440&within=3    whether the tone reaches it; more than one: all at once
POST   /calls/CALL/hangup | hold | unhold | answer
POST   /calls/CALL/reject {"status": 486}
POST   /calls/CALL/transfer {"to": "<sip:…>"} | attend {"other": CALL}    a REFER, of attend with Replaces
POST   /calls/CALL/digits {"digits": "12,3#", "method": "rfc2833|info|inband"}
POST   /routes         {"number": "...", "path": "disa/acme/front", "node": "127.0.0.1:8084"}
                       or {"number": "...", "actions": [["answer", ""], ...], "contexts": ["public"]}
POST   /gateways/NAME  {"fails": "NETWORK_OUT_OF_ORDER" | 38 | null, "down": false, "silent": false}
DELETE /gateways/NAME
POST   /tick           {"milliseconds": 0}
POST   /drop-sockets   {"share": 1.0}       cut every event-socket connection, or a share of them; calls stay up
POST   /die                                 as killed; --legs says which legs that took along
POST   /reset                               hang all up; forget routes, outside phones, calls

Script: answer_after (0.1; null: rings for ever), ring_after (0; null: no 180), early_media, reject (SIP
status), redirect (Contact of a 302), reason, silent, unreachable, hangup_after, tone (Hz), digits, digits_after (0.3),
telephone_event (true; false: the switch detects its tones, once told to), auto_answer (false; true: it answers at
once if the INVITE asks for that).
"""


class ControlError(Exception):
    """A bad request: the status, and what to correct."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class ControlServer:
    """Serves one switch."""

    def __init__(self, switch: Switch, host: str, port: int) -> None:
        self.switch = switch
        self.server = WSGIServer((host, port), self._serve, log=None, error_log=None)
        self.server.init_socket()
        # Accepted connections inherit this. Without it, each response waits 40 ms for the client's ACK.
        self.server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.start()

    @property
    def address(self) -> tuple[str, int]:
        """The address on which it listens."""
        return str(self.server.address[0]), int(self.server.address[1])

    def _serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        status, kind = "200 OK", "application/json"
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            raw = environ["wsgi.input"].read(length) if length else b""
            body = json.loads(raw) if raw else {}
            if not isinstance(body, dict):
                raise ControlError("400 Bad Request", "the body must be a JSON object")
            query = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
            path = [unquote(part) for part in environ["PATH_INFO"].split("/") if part]
            answer = self._handle(environ["REQUEST_METHOD"], path, body, query)
        except ControlError as error:
            status, answer = error.status, {"error": str(error)}
        except json.JSONDecodeError as error:
            status, answer = "400 Bad Request", {"error": f"the body isn't JSON: {error}"}
        except (ValueError, TypeError, KeyError) as error:
            status, answer = "400 Bad Request", {"error": f"{type(error).__name__}: {error}"}
        if isinstance(answer, str):
            kind, data = "text/plain; charset=utf-8", answer.encode()
        else:
            data = json.dumps(answer).encode() + b"\n"
        start(status, [("Content-Type", kind), ("Content-Length", str(len(data)))])
        return [data]

    def _die(self) -> None:
        """End as by ``kill -9``, but first write the live legs to ``--legs``."""
        if self.switch.legs is not None:
            for channel in self.switch.channels.values():
                # A leg that has ended still exists while a socket lingers on it.
                if not channel.reported:
                    self.switch.legs.write(channel, killed=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def _handle(self, method: str, path: list[str], body: dict[str, Any], query: dict[str, str]) -> Any:
        # Long: a table, each route once.
        switch = self.switch
        match (method, *path):
            case ("GET",):
                return USAGE
            case ("GET", "status"):
                return self._status()
            case ("POST", "die"):
                return self._die()
            case ("GET", "channels"):
                return json.loads(switch.api("show", "channels as json"))
            case ("POST", "api"):
                name, _, argument = str(body["command"]).partition(" ")
                return {"response": switch.api(name, argument)}
            case ("POST" | "PUT", "phones", number):
                return self._define(number, body)
            case ("PATCH", "phones", number):
                phone = self._phone(number)
                phone.script = Script.parse(body.get("script") or {})
                return self._shown(phone)
            case ("GET", "phones", number):
                return self._shown(self._phone(number), calls=True)
            case ("DELETE", "phones", number):
                self._phone(number).registrations = 0
                return {}
            case ("POST", "phones", number, "dial"):
                phone = self._phone(number)
                dialog = phone.dial(
                    str(body["number"]),
                    body.get("headers") or {},
                    context=body.get("context"),
                    codecs=body.get("codecs") or ("PCMU",),
                )
                return dialog.as_json()
            case ("POST", "phones", number, "dead"):
                self._phone(number).dead += 1
                return {}
            case ("POST", "phones", number, "answer"):
                self._live_call(number).pick_up()
                return {}
            case ("POST", "phones", number, "hangup"):
                self._live_call(number).hang_up()
                return {}
            case ("POST", "phones", number, "reject"):
                self._live_call(number).reject(int(body.get("status", 486)))
                return {}
            case ("GET", "calls", ref):
                return self._call(ref).as_json()
            case ("GET", "calls", ref, "hears"):
                tones = [int(hz) for hz in query["hz"].split(",")]
                return {"heard": self._hears(ref, tones, float(query.get("within", 3.0)))}
            case ("POST", "calls", ref, "hangup"):
                self._call(ref).hang_up()
                return {}
            case ("POST", "calls", ref, "answer"):
                self._call(ref).pick_up()
                return {}
            case ("POST", "calls", ref, "transfer"):
                self._call(ref).transfer(str(body["to"]))
                return {}
            case ("POST", "calls", ref, "reject"):
                self._call(ref).reject(int(body["status"]))
                return {}
            case ("POST", "calls", ref, "attend"):
                self._call(ref).attend(self._call(str(body["other"])))
                return {}
            case ("POST", "calls", ref, "hold" | "unhold" as action):
                self._call(ref).set_hold(action == "hold")
                return {}
            case ("POST", "calls", ref, "digits"):
                method_name = str(body.get("method") or "rfc2833")
                if method_name not in ("rfc2833", "info", "inband"):
                    raise ControlError("400 Bad Request", "method is rfc2833, info or inband")
                return {"seconds": self._call(ref).digits(str(body["digits"]), method_name)}
            case ("POST", "routes"):
                return self._route(body)
            case ("POST" | "PUT", "gateways", name):
                return self._gateway(name, body)
            case ("DELETE", "gateways", name):
                switch.gateways.pop(name, None)
                return {}
            case ("POST", "tick"):
                switch.tick = float(body["milliseconds"]) / 1000
                return {}
            case ("POST", "drop-sockets"):
                share = float(body.get("share", 1.0))
                dropped = [listener for listener in switch.listeners if switch.random.random() < share]
                for listener in dropped:
                    listener.cut()
                return {"dropped": len(dropped)}
            case ("POST", "reset"):
                return self._reset()
        raise ControlError("404 Not Found", f"{method} /{'/'.join(path)}: see GET /")

    def _status(self) -> dict[str, Any]:
        switch = self.switch
        return {
            "channels": len(switch.channels),
            "sessions": switch.sessions_since_startup,
            "listeners": len(switch.listeners),
            "calls": len(switch.dialogs),
            "extensions": {phone.number: phone.registrations for phone in switch.extensions.values()},
            "outside": sorted(switch.outside),
            "routes": {context: sorted(routes) for context, routes in switch.dialplan.routes.items()},
            "gateways": {
                gateway.name: {"fails": gateway.fails, "down": gateway.down} for gateway in switch.gateways.values()
            },
        }

    def _define(self, number: str, body: dict[str, Any]) -> dict[str, Any]:
        unknown = set(body) - {"script", "registrations", "outside"}
        if unknown:
            raise ControlError("400 Bad Request", f"unknown keys {sorted(unknown)}")
        script = Script.parse(body.get("script") or {})
        if body.get("outside"):
            phone = self.switch.outside_phone(number, script)
        else:
            phone = self.switch.extension(number, script, int(body.get("registrations", 1)))
        return self._shown(phone)

    def _phone(self, number: str) -> Phone:
        phone = self.switch.extensions.get(number) or self.switch.outside.get(number)
        if phone is None:
            raise ControlError("404 Not Found", f"no phone {number}; define it with POST /phones/{number}")
        return phone

    def _shown(self, phone: Phone, *, calls: bool = False) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "number": phone.number,
            "outside": phone.outside,
            "registrations": phone.registrations,
            "script": asdict(phone.script),
        }
        if calls:
            shown["calls"] = [call.as_json() for call in phone.calls]
        return shown

    def _live_call(self, number: str) -> Dialog:
        for dialog in reversed(self._phone(number).calls):
            if dialog.leg.ended_at is None:
                return dialog
        raise ControlError("404 Not Found", f"phone {number} has no live call")

    def _call(self, ref: str) -> Dialog:
        dialog = self.switch.find_dialog(ref)
        if dialog is None:
            raise ControlError("404 Not Found", f"no call {ref}")
        return dialog

    def _hears(self, ref: str, tones: list[int], within: float) -> bool:
        dialog = self._call(ref)
        end = time.monotonic() + within
        while True:
            heard = dialog.hears()
            # A real phone's analyser is this exact.
            if all(any(abs(tone - hz) <= 5 for tone in heard) for hz in tones):
                return True
            if time.monotonic() >= end or dialog.ended:
                return False
            gevent.sleep(0.02)

    def _route(self, body: dict[str, Any]) -> dict[str, Any]:
        if "refers" in body:
            self.switch.dialplan.refers(str(body["refers"]))
            return {}
        number = str(body["number"])
        contexts = body.get("contexts") or ["public", "default"]
        if "actions" in body:
            actions = [(str(app), str(data)) for app, data in body["actions"]]
            for context in contexts:
                self.switch.dialplan.add(context, number, actions)
        else:
            self.switch.dialplan.socket(number, str(body["path"]), str(body["node"]), contexts)
        return {}

    def _gateway(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        gateway = self.switch.gateways.setdefault(name, Gateway(name))
        fails = body.get("fails")
        if fails is not None:
            cause = causes.parse(str(fails), "")
            if not cause:
                raise ControlError("400 Bad Request", f"{fails!r} isn't a hang-up cause")
            fails = cause
        gateway.fails = fails
        gateway.down = bool(body.get("down", False))
        gateway.silent = bool(body.get("silent", False))
        return {"name": name, "fails": gateway.fails, "down": gateway.down}

    def _reset(self) -> dict[str, Any]:
        self.switch.reset()
        with at_most(2.0):
            while self.switch.channels:
                gevent.sleep(0.005)
        for phone in self.switch.extensions.values():
            phone.calls = []
        return {"channels": len(self.switch.channels)}
