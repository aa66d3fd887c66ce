"""The operator's console: pages for people at ``/console/`` on the operator's port, made on the server.

Imported only with ``admin.console: true``. The pages show and do what ``/v1`` and the cards' API do, through the same
functions. Every value is escaped by the templates, and the content security policy allows no inline script or style.
"""
