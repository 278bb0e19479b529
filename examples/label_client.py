"""Label, train and infer on a MONAI Label server over REST, with nothing but Python.

    make label-server                                   # in another terminal
    python examples/label_client.py --model medmerge_segmentation --images IMAGES --labels LABELS --output ANSWERS

Every image whose name has a label is uploaded with it; the server trains on them; the other images are answered. On
MONAI Label's own app add `--weights model_final.pt`, or the answers are those from before the training.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".png", ".jpg", ".json")


class LabelClient:
    """Talks to one server.

    Args:
        url: such as http://127.0.0.1:8000.
        timeout: of one request, in seconds.
    """

    def __init__(self, url: str, timeout: float = 600) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout

    def info(self) -> dict[str, Any]:
        """Models, trainings, strategies and scores, each with its options."""
        return json.loads(self._call("GET", "/info/"))

    def put_image(self, file: Path, name: str | None = None) -> str:
        """Upload an image; returns its name on the server."""
        body = _multipart({"file": file})
        return json.loads(self._call("PUT", "/datastore/image", {"image": name or stem(file)}, *body))["image"]

    def put_label(self, image: str, file: Path, tag: str = "final") -> None:
        """Submit the label of an image: a label map, or a JSON file {"label": CLASS}. Those tagged final train."""
        self._call("PUT", "/datastore/label", {"image": image, "tag": tag}, *_multipart({"label": file}))

    def next_image(self, strategy: str) -> dict[str, Any]:
        """The image to label next; empty where every image has a label."""
        return json.loads(self._call("POST", f"/activelearning/{quote(strategy)}", {}, b"{}", "application/json"))

    def score(self, method: str) -> dict[str, Any]:
        """Score the unlabelled images; returns when that is done."""
        return json.loads(
            self._call("POST", f"/scoring/{quote(method)}", {"run_sync": "true"}, b"{}", "application/json")
        )

    def infer(self, model: str, image: str, **params: Any) -> bytes:
        """The label map of an image, as the content of a file; `image` is a name or a path on the server."""
        return self._infer(model, image, "image", params)

    def classify(self, model: str, image: str, **params: Any) -> dict[str, float]:
        """The probability of every class."""
        answer = json.loads(self._infer(model, image, "json", params))
        return {entry["label"]: entry["score"] for entry in answer["prediction"]}

    def train(self, model: str, **options: Any) -> dict[str, Any]:
        """Begin a training; `options` are those that `info()["trainers"][model]["config"]` lists."""
        return json.loads(
            self._call("POST", f"/train/{quote(model)}", {}, json.dumps(options).encode(), "application/json")
        )

    def status(self) -> dict[str, Any]:
        """Of the last training: `status`, and in `details` its last lines."""
        return json.loads(self._call("GET", "/train/"))

    def wait(self, poll: float = 1.0) -> dict[str, Any]:
        """Wait until the training ends; returns its last `status`: DONE, ERROR or STOPPED."""
        while (status := self.status())["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(poll)
        return status

    def cancel(self) -> None:
        """End the training that runs."""
        self._call("DELETE", "/train/")

    def _infer(self, model: str, image: str, output: str, params: dict[str, Any]) -> bytes:
        query = {"image": image, "output": output}
        return self._call("POST", f"/infer/{quote(model)}", query, *_multipart({"params": json.dumps(params)}))

    def _call(
        self, method: str, path: str, query: dict[str, str] | None = None, body: bytes | None = None, kind: str = ""
    ) -> bytes:
        address = self.url + path + (f"?{urlencode(query)}" if query else "")
        request = Request(address, data=body, method=method, headers={"Content-Type": kind} if kind else {})  # noqa: S310
        try:
            with urlopen(request, timeout=self.timeout) as answer:  # noqa: S310
                return answer.read()
        except HTTPError as error:
            # The reason stands in the body, which the exception does not show.
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error


def stem(file: Path) -> str:
    """The name of a file without the suffix of its format."""
    suffix = next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), "")
    return file.name[: len(file.name) - len(suffix)]


def _multipart(fields: dict[str, Path | str]) -> tuple[bytes, str]:
    """The body of a form with texts and files, and its content type."""
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in fields.items():
        file = f'; filename="{value.name}"' if isinstance(value, Path) else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + (value.read_bytes() if isinstance(value, Path) else value.encode()) + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def main() -> int:
    """Label, train, infer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", required=True, help="a name that /info lists")
    parser.add_argument("--images", required=True, type=Path, help="folder of images")
    parser.add_argument("--labels", required=True, type=Path, help="folder of labels, named as the images")
    parser.add_argument("--output", required=True, type=Path, help="folder for the answers")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--merge", action="store_true", help="merge the bundle's sources on these labels first")
    parser.add_argument(
        "--weights", help="file in the bundle's models/ to answer with; the server chooses unless given"
    )
    arguments = parser.parse_args()
    client = LabelClient(arguments.url)
    labels, images = (
        {stem(file): file for file in sorted(folder.iterdir()) if file.name.lower().endswith(SUFFIXES)}
        for folder in (arguments.labels, arguments.images)
    )
    for name, file in images.items():
        client.put_image(file, name)
        if name in labels:
            client.put_label(name, labels[name])
    print(f"{len(images)} images, {len(images.keys() & labels.keys())} with a label; training")
    merging: dict[str, Any] = {}
    if arguments.merge:
        # Our app has an option for it; on MONAI Label's own it is another run of the bundle's train.json.
        known = client.info()["trainers"][arguments.model]["config"]
        merging = {"merge": True} if "merge" in known else {"run_id": "merge"}
    client.train(arguments.model, max_epochs=arguments.epochs, **merging)
    ended = client.wait()
    if ended["status"] != "DONE":
        print("\n".join(ended["details"]), file=sys.stderr)
        return 1
    info = client.info()
    if losses := info["train_stats"][arguments.model].get("loss"):
        print(f"Mean loss {losses[0]:.4f} in the first epoch, {losses[-1]:.4f} in the last")
    params = {"model_filename": arguments.weights} if arguments.weights else {}
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in images.keys() - labels.keys():
        if info["models"][arguments.model]["type"] == "classification":
            print(name, client.classify(arguments.model, name, **params))
        else:
            labels = client.infer(arguments.model, name, result_extension=".nii.gz", **params)
            (arguments.output / f"{name}.nii.gz").write_bytes(labels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
