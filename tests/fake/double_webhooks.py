"""Where the double would send its events: registrations as e2b.md 0.11 has them, strictly checked."""

import json

from aiohttp import web

FIELDS = {"name": str, "url": str, "enabled": bool, "signatureSecret": str, "events": list}
TYPES = {f"sandbox.lifecycle.{word}" for word in ("created", "killed", "paused", "resumed", "updated", "checkpointed")}


class Webhooks:
    """The registrations of one account."""

    def __init__(self):
        self.present: dict[str, dict] = {}
        self._made = 0

    def breaches(self, body: bytes) -> list[str]:
        """What is wrong with a registration."""
        wanted = json.loads(body)
        found = [f"registration: {name} is {wanted.get(name)!r}" for name, kind in FIELDS.items() if not isinstance(wanted.get(name), kind)]
        found += [f"registration has an unknown field {name}" for name in wanted.keys() - FIELDS.keys()]
        return found + [f"unknown event {name}" for name in set(wanted.get("events", ())) - TYPES]

    def register(self, body: bytes) -> web.Response:
        """POST /events/webhooks."""
        self._made += 1
        name = f"wh-{self._made}"
        self.present[name] = json.loads(body)
        return web.json_response({"id": name} | self.present[name], status=201)

    def listed(self) -> web.Response:
        """GET /events/webhooks: no secret is shown again."""
        shown = [{"id": name} | {key: value for key, value in hook.items() if key != "signatureSecret"} for name, hook in self.present.items()]
        return web.json_response(shown)

    def delete(self, name: str) -> web.Response:
        """DELETE /events/webhooks/{id}."""
        known = self.present.pop(name, None) is not None
        return web.Response(status=200) if known else web.json_response({"code": 404, "message": "not found"}, status=404)
