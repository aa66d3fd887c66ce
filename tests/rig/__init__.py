"""Two switches under one interface: the sandbox, and a real FreeSWITCH with PJSIP phones (see base.py)."""
