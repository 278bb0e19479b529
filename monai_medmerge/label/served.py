"""The application that is served: MONAI Label's own, behind the door, whatever bundles or app it has.

`python -m monai_medmerge.label` starts it; so does MONAI Label's own `start_server` with
`--uvicorn_app monai_medmerge.label.served:app`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monailabel.app import app as labels
from monailabel.config import settings
from monailabel.interfaces.utils.app import app_instance

from monai_medmerge.label.door.addresses import Group
from monai_medmerge.label.door.checks import Limits
from monai_medmerge.label.door.ending import Ending
from monai_medmerge.label.door.middleware import Door, Message, Receive, Send
from monai_medmerge.label.door.privacy import Hider, make_discreet

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Of our own: Label's start_server fails on the setting of its server, which its own pages would need.
_ORIGINS = os.environ.get("MONAI_MEDMERGE_LABEL_ORIGINS", "").split()


class Instance:
    """The app that MONAI Label runs, as the door needs to know it; see `addresses.Served`."""

    def __init__(self) -> None:
        conf = settings.MONAI_LABEL_APP_CONF
        self.limits = Limits.of(conf)
        self.opened = frozenset(word.strip() for word in str(conf.get("open", "")).split(",") if word.strip())
        remote = settings.MONAI_LABEL_STUDIES.startswith(("http://", "https://"))
        self.studies = None if remote else Path(settings.MONAI_LABEL_STUDIES)

    @cached_property
    def _info(self) -> Mapping[str, Any]:
        return app_instance().info()

    def tasks(self, group: Group) -> Mapping[str, Mapping[str, Any]]:
        """As `addresses.Served` has it."""
        tasks: Mapping[str, Mapping[str, Any]] = self._info[group]
        return tasks

    def has_image(self, image: str) -> bool:
        """As `addresses.Served` has it."""
        return self.studies is None or bool(app_instance().datastore().get_image_uri(image))

    def has_label(self, image: str, tag: str) -> bool:
        """As `addresses.Served` has it."""
        return self.studies is None or bool(app_instance().datastore().get_label_uri(image, tag))

    def is_labelled(self) -> bool:
        """As `addresses.Served` has it."""
        return bool(app_instance().datastore().get_labeled_images())


class Lasting:
    """Begins and ends with the server what the server does not.

    Args:
        door: in front of MONAI Label.
        ending: of what it began.
        hider: of paths in logs.
    """

    def __init__(self, door: Door, ending: Ending, hider: Hider) -> None:
        self.door = door
        self.ending = ending
        self.hider = hider

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or begin and end."""
        if scope["type"] != "lifespan":
            return await self.door(scope, receive, send)

        async def sent(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.ending.on_signal()
                make_discreet(self.hider)
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                self.ending.begin()
                self.ending.wait()
            await send(message)

        make_discreet(self.hider)
        return await self.door(scope, receive, sent)


def _hosts() -> set[str]:
    """Names of this server, where only this machine reaches it or a proxy that tells its own name."""
    if os.environ.get("MONAI_MEDMERGE_LABEL_HOST", "") not in LOOPBACK:
        return set()
    named = (urlsplit(origin).hostname for origin in _ORIGINS)
    return {*LOOPBACK, *(name for name in named if name)}


_hider = Hider((settings.MONAI_LABEL_STUDIES, settings.MONAI_LABEL_APP_DIR))
app = Lasting(
    Door(
        labels, Instance, _ORIGINS, _hosts(),
        settings.MONAI_LABEL_API_STR, _hider,
    ),
    Ending(), _hider,
)  # fmt: skip
