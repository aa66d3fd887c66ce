"""The event socket: greenswitch's classes with another reader, other waits and another matching."""
