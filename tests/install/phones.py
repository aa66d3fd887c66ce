"""Two SIP phones for ``fresh_machine.sh``: 1000 and 1001 register at a stock FreeSWITCH and answer what rings.

``python phones.py DOMAIN`` prints ``registered`` once both are, and a line for each call that is answered or has ended.
"""

from __future__ import annotations

import sys
from typing import Any

import pjsua2 as pj

#: The password of a stock FreeSWITCH's users.
_PASSWORD = "1234"


class Call(pj.Call):  # type: ignore[misc]
    def __init__(self, phone: Phone, number: int) -> None:
        super().__init__(phone, number)
        self.phone = phone

    def onCallState(self, _param: Any) -> None:
        info = self.getInfo()
        if info.state in (pj.PJSIP_INV_STATE_CONFIRMED, pj.PJSIP_INV_STATE_DISCONNECTED):
            print(self.phone.name, info.stateText, info.remoteUri, flush=True)


class Phone(pj.Account):  # type: ignore[misc]
    def __init__(self, name: str, domain: str) -> None:
        super().__init__()
        self.name = name
        self.calls: list[Call] = []
        config = pj.AccountConfig()
        config.idUri = f"sip:{name}@{domain}"
        config.regConfig.registrarUri = f"sip:{domain}"
        config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", name, 0, _PASSWORD))
        self.create(config)

    def onIncomingCall(self, param: Any) -> None:
        call = Call(self, param.callId)
        self.calls.append(call)
        answer = pj.CallOpParam()
        answer.statusCode = 200
        call.answer(answer)


def main(domain: str) -> None:
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.uaConfig.threadCnt = 0
    config.uaConfig.mainThreadOnly = True
    config.logConfig.level = config.logConfig.consoleLevel = 0
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.port = 15060
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    endpoint.libStart()
    endpoint.audDevManager().setNullDev()
    phones = [Phone(name, domain) for name in ("1000", "1001")]
    told = False
    while True:
        endpoint.libHandleEvents(100)
        if not told and all(phone.getInfo().regIsActive for phone in phones):
            told = True
            print("registered", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
