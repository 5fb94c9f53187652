"""The explorer: a local server, a static app, and exports of both."""
