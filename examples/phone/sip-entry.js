// The parts of SIP.js that the phone uses.
export { Inviter, Registerer, RegistererState, SessionState, UserAgent } from "sip.js";
