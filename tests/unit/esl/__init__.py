"""The event-socket layer, against a scripted switch and against recorded traffic, in the test's own process."""
