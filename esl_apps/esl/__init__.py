"""The event socket: greenswitch's classes, made right and fast (see ``docs/explanation/architecture.rst``)."""
