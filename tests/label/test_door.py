"""What a client may not do, asked of the real server: no code, no file elsewhere, no answer of 500."""

from __future__ import annotations

import json
import random
import signal
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from label_client import LabelClient

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

from monai_medmerge.label.door.routes import ROUTES

REQUESTS = 400
INJECTED = ("device", "tracking_uri", "tracking_experiment_name", "tracking_run_name")
HOSTILE = [
    "", "$__import__('os').system('touch {touched}')", "@device", "%/etc/passwd", "../../x", "/etc/passwd", "..\\x",
    "a/../../b", ".hidden", "a\nb", "a\x1b[2J", "\x00", "x" * 5000, "1e308", "-3", "0", "null", "{", "[" * 5000,
    '{"a": ' * 3000, "NaN", "3", "[]", '"text"', "\udcff", "mr", "blocks", "image", "true", "final", "dicom_seg",
    '{"max_epochs": 1e308}', '{"model_filename": ["a"]}',
]  # fmt: skip


def ask(
    client: LabelClient, method: str, path: str, body: bytes | None = None, kind: str = "", **headers: str
) -> tuple[int, str]:
    address = urlsplit(client.url)
    assert address.hostname is not None
    connection = HTTPConnection(address.hostname, address.port, timeout=120)
    try:
        connection.request(method, path, body, {**({"Content-Type": kind} if kind else {}), **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def send(client: LabelClient, method: str, path: str, content: Any, **query: str) -> tuple[int, str]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return ask(client, method, f"{path}?{urlencode(query)}", body, "application/json")


def form(fields: dict[str, tuple[str | None, bytes]]) -> tuple[bytes, str]:
    body = b""
    for name, (file, content) in fields.items():
        ending = f'; filename="{file}"' if file is not None else ""
        body += f'--line\r\nContent-Disposition: form-data; name="{name}"{ending}\r\n\r\n'.encode("utf-8", "replace")
        body += content + b"\r\n"
    return body + b"--line--\r\n", "multipart/form-data; boundary=line"


def one_line(answer: str) -> str:
    detail = json.loads(answer)["detail"]
    assert isinstance(detail, str)
    assert "\n" not in detail
    return detail


@pytest.mark.parametrize("option", INJECTED)
def test_a_request_never_becomes_code(served: LabelClient, option: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    code = f"$__import__('os').system('touch {touched}')"
    for content in ({option: code}, {option: [code]}, {option: {"_target_": "os.system", "command": code}}):
        status, answer = send(served, "POST", "/train/blocks", content)
        assert status == 422, answer
        assert option in one_line(answer)
        assert send(served, "POST", "/train/", {"blocks": content})[0] == 422
    assert not touched.exists()


@pytest.mark.parametrize(
    "content",
    [{"max_epochs": 0}, {"max_epochs": -3}, {"max_epochs": 1e308}, {"max_epochs": "1001"}, {"max_epoch": 3}],
    ids=str,
)
def test_numbers_have_bounds_and_options_names(served: LabelClient, content: dict[str, Any]) -> None:
    status, answer = send(served, "POST", "/train/blocks", content)
    assert status == 422, answer
    assert "expected" in one_line(answer)


@pytest.mark.parametrize(
    "params", ["{", "null", "3", "[" * 10_000, '{"model_filename": ["a"]}', '{"image": "/etc/passwd"}']
)
def test_malformed_parameters_are_refused(served: LabelClient, params: str) -> None:
    body, kind = form({"params": (None, params.encode())})
    status, answer = ask(served, "POST", "/infer/blocks?image=mr", body, kind)
    assert status == 422, answer
    one_line(answer)


def test_a_classification_has_no_label_map(served: LabelClient) -> None:
    status, answer = ask(served, "POST", "/infer/kinds?image=mr&output=image")
    assert status == 422
    assert "output" in one_line(answer)


def test_what_is_elsewhere_is_not_told(served: LabelClient, tmp_path: Path) -> None:
    (tmp_path / "there.nii.gz").write_bytes(b"")
    answers = {
        ask(served, "POST", f"/infer/blocks?{urlencode({'image': str(tmp_path / name)})}")
        for name in ("there.nii.gz", "absent.nii.gz")
    }
    assert len(answers) == 1
    assert answers.pop()[0] in (404, 422)


@pytest.mark.parametrize("name", ["../../x", "/absent/x.py", "a/../../x", "a\nb", ".x", "$x"])
@pytest.mark.parametrize("what", ["image", "tag", "file"])
def test_uploads_stay_where_they_belong(served: LabelClient, volumes: Any, studies: Path, name: str, what: str) -> None:
    image, file = next(iter(volumes[0].items()))
    before = set(studies.parent.rglob("*"))
    label = what == "tag"
    query = {"image": image, "tag": name} if label else {"image": name if what == "image" else "new"}
    field = "label" if label else "file"
    sent = f"{name}.nii.gz".replace("\n", "%0A") if what == "file" else file.name
    body, kind = form({field: (sent, file.read_bytes())})
    status, answer = ask(served, "PUT", f"/datastore/{'label' if label else 'image'}?{urlencode(query)}", body, kind)
    after = set(studies.parent.rglob("*"))
    new = [path for path in after - before if "server.log" not in path.name]
    if what == "file" and status == 200:
        # The client's name of a file is not what it is kept under.
        assert all(path.is_relative_to(studies) for path in new)
    else:
        assert status == 422, answer
        one_line(answer)
        assert not new


def test_no_image_no_upload(served: LabelClient) -> None:
    for name, content in (("a.nii.gz", b"no"), ("a.png", b"\x89PNG"), ("a.py", b"print()"), ("a.dcm", b"x" * 200)):
        body, kind = form({"file": (name, content)})
        status, answer = ask(served, "PUT", "/datastore/image?image=a", body, kind)
        assert status == 422, (name, answer)
        one_line(answer)


def test_pages_of_other_origins_may_not_ask(served: LabelClient) -> None:
    status, answer = ask(served, "GET", "/info/", Origin="https://elsewhere.example")
    assert status == 403, answer
    assert ask(served, "GET", "/info/", Host="elsewhere.example")[0] == 403
    assert ask(served, "GET", "/info/", Origin=served.url)[0] == 200


@pytest.mark.parametrize("path", ["/proxy/dicom/x", "/reload/", "/infer/wsi/blocks", "/nonesuch"])
def test_what_is_not_opened_is_closed(served: LabelClient, path: str) -> None:
    assert ask(served, "GET", path)[0] in (404, 405)
    assert ask(served, "POST", path, b"{}", "application/json")[0] in (404, 405)


def test_no_request_fails_the_server_or_leaves_its_folder(served: LabelClient, studies: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    touched = tmp_path / "touched"
    words = [word.replace("{touched}", str(touched)) for word in HOSTILE]
    outside = set(studies.parent.iterdir())
    # What would end trainings of other tests or answer with whole archives has tests of its own.
    routes = [route for route in ROUTES if (not route.handed and "GET" not in route.methods) or draw.random() < 0.5]
    for _ in range(REQUESTS):
        route = draw.choice(routes)
        path = route.path
        for part in ("model", "strategy", "method", "session_id", "path:path"):
            path = path.replace(f"{{{part}}}", quote(draw.choice(words), safe="", errors="surrogateescape"))
        names = [*route.query, draw.choice(["image", "x", "output"])]
        query = {name: draw.choice(words) for name in names if draw.random() < 0.6}
        text = urlencode(query, errors="surrogateescape")
        method = draw.choice(route.methods)
        if route.takes == "form":
            fields = {name: (None, draw.choice(words).encode("utf-8", "replace")) for name in route.texts}
            files = {name: (draw.choice(words)[:200].replace('"', ""), draw.randbytes(50)) for name in route.files}
            body, kind = form({**fields, **files})
        else:
            values = {draw.choice(["device", "max_epochs", "blocks", "x"]): draw.choice(words) for _ in range(2)}
            body = draw.choice([json.dumps(values).encode(), draw.choice(words).encode("utf-8", "replace")])
            kind = draw.choice(["application/json", "text/plain"])
        status, answer = ask(served, method, f"{path or '/'}?{text}", body if method in ("POST", "PUT") else None, kind)
        assert status < 500, (method, path, query, answer)
    assert not touched.exists()
    assert set(studies.parent.iterdir()) == outside
    assert ask(served, "GET", "/info/")[0] == 200


def test_sigterm_ends_it_in_ten_seconds_and_keeps_what_was_trained(
    bundles: dict[str, Path], volumes: Any, tmp_path: Path
) -> None:
    from label.serving import started

    command = ["-m", "monai_medmerge.label", "--studies", str(tmp_path / "studies"), "--folder", str(tmp_path / "app")]
    (tmp_path / "studies").mkdir()
    server, client = started([*command, "--bundle", str(bundles["blocks"])], tmp_path)
    try:
        for name in list(volumes[0])[:3]:
            client.put_image(volumes[0][name])
            client.put_label(name, volumes[1][name])
        client.train("blocks", max_epochs=1000)
        end = time.monotonic() + 300
        while time.monotonic() < end and not any("mean loss" in line for line in client.status().get("details", [])):
            time.sleep(0.2)
        begun = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
        assert time.monotonic() - begun < 10
    finally:
        server.kill()
        server.wait()
    kept = tmp_path / "app" / "model" / "blocks" / "models" / "model_label.pt"
    assert kept.is_file()
