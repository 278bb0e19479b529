"""What each address of MONAI Label takes, in one table; an address that is not in it is not served."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monai_medmerge.errors import SettingError
from monai_medmerge.files import below
from monai_medmerge.files.naming import shown
from monai_medmerge.label.door.addresses import AbsentError, Call, Group, Route, Served
from monai_medmerge.label.door.checks import (
    BATCH,
    INFER,
    TRAIN,
    WORDS,
    Option,
    check_name,
    check_options,
    declared,
    read_object,
    refuse_evaluated,
)

NOUNS: dict[Group, str] = {"models": "model", "trainers": "training of", "strategies": "strategy", "scoring": "score"}
# What MONAI Label and this package keep of an image beside what annotators say.
RESERVED = ("strategy", "path", "name", "ts", "checksum")


def _known(call: Call, served: Served, group: Group, key: str = "model") -> Mapping[str, Any]:
    name, there = call.path[key], served.tasks(group)
    if name not in there:
        of = "of " if group == "trainers" else ""
        raise AbsentError(f"There is no {NOUNS[group]} '{shown(name)}', but {of}{', '.join(there) or 'none'}")
    return there[name]


def _image(call: Call, served: Served, key: str = "image") -> None:
    if key in call.query:
        check_name(call.query[key], key)
        if not served.has_image(call.query[key]):
            raise AbsentError(f"There is no image '{shown(call.query[key])}'")


def _label(call: Call, served: Served) -> None:
    key = "id" if "id" in call.query else "image" if "image" in call.query else "label"
    image, tag = call.query.get(key), call.query.get("tag")
    if image is None or tag is None:
        raise SettingError(f"{key} and tag", "one of them missing", "query")
    _image(call, served, key)
    if not served.has_label(image, tag):
        raise AbsentError(f"There is no label of '{shown(image)}' with this tag")


def _required(call: Call, key: str) -> None:
    if key not in call.query:
        raise SettingError(f"{key}", "none", "query")


def _notes(call: Call, served: Served, key: str) -> None:
    """What is kept of an image or label beside it; not what the server itself keeps there."""
    notes = read_object(call.texts.get(key, ""), key)
    Option("object").check(notes, key)
    taken = {*RESERVED, *served.tasks("scoring")} & set(notes)
    if taken:
        raise SettingError(f"notes other than {', '.join((*RESERVED, *served.tasks('scoring')))}", min(taken), key)


def _upload_image(call: Call, served: Served) -> None:
    if not call.files:
        raise SettingError("a file", "none", "file")
    _notes(call, served, "params")


def _upload_label(call: Call, served: Served) -> None:
    _required(call, "image")
    _image(call, served)
    if not call.files:
        raise SettingError("a file", "none", "label")
    _notes(call, served, "params")


def _remove_image(call: Call, served: Served) -> None:
    _required(call, "id")
    _image(call, served, "id")


def _get_image(call: Call, served: Served) -> None:
    _required(call, "image")
    _image(call, served)


def _image_notes(call: Call, served: Served) -> None:
    _get_image(call, served)
    _notes(call, served, "info")


def _label_notes(key: str) -> Callable[[Call, Served], None]:
    def check(call: Call, served: Served) -> None:
        _label(call, served)
        _notes(call, served, key)

    return check


def _dataset(call: Call, served: Served) -> None:
    if not served.is_labelled():
        raise AbsentError("No image has a final label yet")


def _infer(call: Call, served: Served) -> None:
    task = _known(call, served, "models")
    params = read_object(call.texts.get("params", ""), "params")
    options = {**INFER, **declared(task.get("config", {}), served.limits)}
    check_options(params, options, f"params of {call.path['model']}")
    refuse_evaluated(params, "params")
    output = call.query.get("output", "")
    if output in ("image", "dicom_seg") and task.get("type") == "classification":
        raise SettingError("json, as a classification has no label map", output, "output")
    if output == "dicom_seg" and served.studies is not None:
        raise SettingError("image, json or all, as the studies are no DICOM server", output, "output")
    sent = [name for name, _, _ in call.files]
    if "file" not in sent and not call.query.get("image") and not call.query.get("session_id"):
        raise SettingError("image, session_id or a file", "none of them", "query")
    if call.query.get("image"):
        call.query["image"] = resolved_image(call.query["image"], served)


def resolved_image(image: str, served: Served) -> str:
    """The id of an image, or the whole path of one below the folder of studies.

    Args:
        image: an id, or a path below the folder of studies, whole or from there on.
        served: what there is.

    Raises:
        SettingError: it leads elsewhere, whether there is something or not.
        AbsentError: there is none.
    """
    if served.studies is None:
        check_name(image, "image")
        return image
    if served.has_image(image):
        return image
    expected = "the id of an image or a path below the folder of studies"
    root = str(served.studies).rstrip("/") + "/"
    name = image[len(root) :] if image.startswith(root) else image
    try:
        path = below(served.studies, name, "image")
    except SettingError as error:
        raise SettingError(expected, "another", "image") from error
    hidden = any(part.startswith(".") for part in Path(name).parts)
    if "/" not in image.strip("/") or hidden or not path.exists():
        raise AbsentError(f"There is no image '{shown(Path(name).name)}'")
    return str(path)


def _train(call: Call, served: Served) -> None:
    task = _known(call, served, "trainers")
    _check_training(read_object(call.body, "body"), task, served, call.path["model"])


def _check_training(values: Mapping[str, Any], task: Mapping[str, Any], served: Served, name: str) -> None:
    check_options(values, {**declared(task.get("config", {}), served.limits), **TRAIN}, f"training of {name}")
    refuse_evaluated(values, f"training of {name}")


def _train_all(call: Call, served: Served) -> None:
    tasks = served.tasks("trainers")
    for name, values in read_object(call.body, "body").items():
        if name not in tasks:
            raise SettingError(f"trainings among {', '.join(tasks) or 'none'}", f"'{shown(name)}'", "body")
        Option("object").check(values, name)
        if not isinstance(values, dict):
            raise SettingError("a JSON object", "another value", name)
        _check_training(values, tasks[name], served, name)


def _batch(call: Call, served: Served) -> None:
    task = _known(call, served, "models")
    values = read_object(call.body, "body")
    check_options(values, {**declared(task.get("config", {}), served.limits), **INFER, **BATCH}, "batch inference")
    refuse_evaluated(values, "batch inference")


def _of_task(group: Group, key: str) -> Callable[[Call, Served], None]:
    def check(call: Call, served: Served) -> None:
        task = _known(call, served, group, key)
        values = read_object(call.body, "body")
        check_options(values, _method_options(task, served), call.path[key])
        refuse_evaluated(values, call.path[key])

    return check


def _method_options(task: Mapping[str, Any], served: Served) -> dict[str, Option]:
    devices = [device for model in served.tasks("models").values() for device in model["config"].get("device", ())]
    known = {
        "max_samples": Option("whole number", 0, served.limits.max_samples),
        "device": Option("choice", choices=tuple(dict.fromkeys(devices))),
    }
    return {**declared(task.get("config") or {}, served.limits), **known}


def _score_all(call: Call, served: Served) -> None:
    tasks = served.tasks("scoring")
    for name, values in read_object(call.body, "body").items():
        if name not in tasks or not isinstance(values, dict):
            raise SettingError(f"an object for scores among {', '.join(tasks) or 'none'}", f"'{shown(name)}'", "body")
        check_options(values, _method_options(tasks[name], served), name)


def _model(call: Call, served: Served) -> None:
    _known(call, served, "models")


def _session(call: Call, served: Served) -> None:
    if not call.files:
        raise SettingError("files", "none", "files")


def _session_id(call: Call, served: Served) -> None:
    if not call.path["session_id"] or not WORDS["session"].fullmatch(call.path["session_id"]):
        raise AbsentError("There is no such session")


def _ohif(call: Call, served: Served) -> None:
    path = call.path["path"]
    if not re.fullmatch(r"[\w.-]*(?:/[\w.-]+)*", path) or ".." in path.split("/") or path == ".":
        raise AbsentError("There is no such page")


def _gpu(call: Call, served: Served) -> None:
    if shutil.which("nvidia-smi") is None:
        raise AbsentError("There is no nvidia-smi")


NAME, TRUTH, JSON = Option("name"), Option("truth"), Option("long text")
STATUS = {"all": TRUTH, "check_if_running": TRUTH}
# A training is a process of its own, which can be stopped; in the server's own it would stop all answers.
APART = {"run_sync": Option("choice", choices=("false", "False"))}
ONE_LABEL = {"label": NAME, "tag": NAME}

ROUTES = (
    Route(("GET",), "/info"),
    Route(("GET",), "/datastore", {"output": Option("choice", choices=("train", "stats", "all"))}),
    *(
        route
        for path in ("/datastore", "/datastore/image")
        for route in (
            Route(("PUT",), path, {"image": NAME}, {"params": JSON}, {"file": "image"}, more=_upload_image),
            Route(("DELETE",), path, {"id": NAME}, more=_remove_image),
        )
    ),
    Route(("HEAD", "GET"), "/datastore/image", {"image": NAME, "check_sum": Option("checksum")}, more=_get_image),
    Route(("GET",), "/datastore/image/info", {"image": NAME}, more=_get_image),
    Route(("PUT",), "/datastore/image/info", {"image": NAME}, {"info": JSON}, more=_image_notes),
    Route(
        ("PUT",), "/datastore/label", {"image": NAME, "tag": NAME}, {"params": JSON}, {"label": "label"},
        more=_upload_label,
    ),
    Route(("DELETE",), "/datastore/label", {"id": NAME, "tag": NAME}, more=_label),
    Route(("HEAD",), "/datastore/label", {"image": NAME, "tag": NAME}, more=_label),
    Route(("GET",), "/datastore/label", ONE_LABEL, more=_label),
    Route(("GET",), "/datastore/label/info", ONE_LABEL, more=_label),
    Route(("PUT",), "/datastore/label/info", ONE_LABEL, {"info": JSON}, more=_label_notes("info")),
    Route(("PUT",), "/datastore/updatelabelinfo", ONE_LABEL, {"params": JSON}, more=_label_notes("params")),
    Route(("GET",), "/datastore/dataset", {"limit_cases": Option("whole number", 1, 10**6)}, more=_dataset),
    Route(
        ("POST",), "/infer/{model}",
        {
            "image": Option("path"), "session_id": Option("session"),
            "output": Option("choice", choices=("image", "json", "all", "dicom_seg")),
        },
        {"params": JSON}, {"file": "image", "label": "label"}, more=_infer,
    ),
    Route(("GET",), "/batch/infer", STATUS),
    Route(("DELETE",), "/batch/infer"),
    Route(
        ("POST",), "/batch/infer/{model}",
        {"images": Option("choice", choices=("all", "labeled", "unlabeled")), **APART}, body=True, more=_batch,
    ),
    Route(("GET",), "/train", STATUS),
    Route(("DELETE",), "/train"),
    Route(("POST",), "/train", APART, body=True, more=_train_all),
    Route(("POST",), "/train/{model}", {**APART, "enqueue": TRUTH}, body=True, more=_train),
    Route(("POST",), "/activelearning/{strategy}", body=True, more=_of_task("strategies", "strategy")),
    Route(("GET",), "/scoring", STATUS),
    Route(("DELETE",), "/scoring"),
    Route(("POST",), "/scoring", {"run_sync": TRUTH}, body=True, more=_score_all),
    Route(("POST",), "/scoring/{method}", {"run_sync": TRUTH}, body=True, more=_of_task("scoring", "method")),
    Route(("GET",), "/model/info/{model}", more=_model),
    Route(("GET",), "/model/{model}", more=_model),
    Route(("PUT",), "/model/{model}", files={"file": "weights"}, more=_model, setting="model"),
    Route(("DELETE",), "/model/{model}", more=_model, setting="model"),
    Route(
        ("GET",), "/logs",
        {"lines": Option("whole number", 0, 10**6), "html": TRUTH, "text": TRUTH,
         "refresh": Option("whole number", 0, 10**6)},
    ),
    Route(("GET",), "/logs/gpu", more=_gpu),
    Route(("PUT",), "/session", {"uncompress": APART["run_sync"], "expiry": Option("whole number", 0, 10**6)},
          files={"files": "image"}, more=_session),
    Route(("GET",), "/session/{session_id}", {"update_ts": TRUTH, "image": TRUTH}, more=_session_id),
    Route(("DELETE",), "/session/{session_id}", more=_session_id),
    Route(("GET",), "/ohif/{path:path}", more=_ohif),
    Route(("GET",), "/ohif"),
    Route(("POST",), "/reload", setting="reload"),
    Route(("GET", "POST"), "/proxy/dicom/{path:path}", setting="proxy", handed=True),
    Route(("GET", "HEAD"), ""),
    *(Route(("GET", "HEAD"), path) for path in ("/docs", "/openapi.json", "/favicon.ico", "/static/{path:path}")),
    Route(("GET",), "/auth"),
    Route(("POST",), "/auth/token", handed=True),
    Route(("GET",), "/auth/token/valid"),
)  # fmt: skip
"""Addresses that no one here has checked (whole slide images) are not in it."""
