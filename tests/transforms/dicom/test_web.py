"""Series over DICOMweb, from a real server (Orthanc) that is started for the tests."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pydicom
import pytest
import requests
from transforms.phantoms import voxels, write_series
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms import fetch_series

ORTHANC = shutil.which("Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
needs_orthanc = pytest.mark.skipif(
    ORTHANC is None or not PLUGIN.exists(), reason="Orthanc (Debian: orthanc, orthanc-dicomweb) is not installed"
)
STUDY, SERIES = "1.2.3", "1.2.3.4"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server without a log-in, on this machine alone."""
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([ORTHANC, folder / "settings.json"], stdout=log, stderr=log)
        try:
            for _ in range(300):
                try:
                    requests.get(f"http://127.0.0.1:{port}/system", timeout=1).raise_for_status()
                    break
                except requests.RequestException:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def stored(server, tmp_path_factory):
    """UIDs of a study and a series that the server has, and the files as they were sent."""
    files = write_series(tmp_path_factory.mktemp("series"), voxels())
    for file in files:
        requests.post(f"{server}/instances", data=file.read_bytes(), timeout=10).raise_for_status()
    dataset = pydicom.dcmread(files[0])
    return dataset.StudyInstanceUID, dataset.SeriesInstanceUID, files


@needs_orthanc
def test_a_series_is_fetched_as_it_is_and_once(server, stored, tmp_path):
    study, series, files = stored
    folder = fetch_series(f"{server}/dicom-web", study, series, tmp_path)
    array, meta = read(folder)
    wanted, same = read(files[0].parent)
    np.testing.assert_array_equal(array, wanted)
    np.testing.assert_array_equal(meta["affine"], same["affine"])
    assert series not in str(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(times) == len(files)
    assert fetch_series(f"{server}/dicom-web", study, series, tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


@needs_orthanc
def test_a_series_that_is_not_there_or_too_large_leaves_nothing(server, stored, tmp_path):
    study, series, _ = stored
    with pytest.raises(DicomSeriesError, match=r"^series \w{10}: expected"):
        fetch_series(f"{server}/dicom-web", STUDY, SERIES, tmp_path)
    with pytest.raises(DicomSeriesError, match=r"expected at most 1000 bytes \(max_bytes\)"):
        fetch_series(f"{server}/dicom-web", study, series, tmp_path, max_bytes=1000)
    assert [path for path in tmp_path.iterdir() if path.is_dir() and any(path.iterdir())] == []


@needs_orthanc
def test_a_wrong_path_is_the_servers_refusal(server, stored, tmp_path):
    study, series, _ = stored
    with pytest.raises(DicomSeriesError, match="expected an answer of the DICOMweb server, found status 404") as caught:
        fetch_series(f"{server}/elsewhere", study, series, tmp_path)
    assert study not in str(caught.value)


@pytest.fixture
def liar():
    """A server that lists an instance, and sends whatever it is told to."""

    class Answers(BaseHTTPRequestHandler):
        listed = json.dumps([{"00080018": {"vr": "UI", "Value": ["1.2.3.4.5"]}}]).encode()
        sent = b""

        def do_GET(self):
            search = "/instances" in self.path
            body = self.listed if search else self.sent
            kind = "application/dicom+json" if search else 'multipart/related; type="application/dicom"; boundary=x'
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    httpd = HTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", Answers
    httpd.shutdown()
    httpd.server_close()


def test_a_server_that_sends_less_or_something_else_is_refused(liar, tmp_path):
    url, answers = liar
    with pytest.raises(DicomSeriesError, match=r"^series \w{10}: expected"):
        fetch_series(url, STUDY, SERIES, tmp_path)
    other = write_series(tmp_path / "other", voxels((1, 4, 5)))[0].read_bytes()
    answers.sent = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + other + b"\r\n--x--\r\n"
    with pytest.raises(DicomSeriesError, match=r"^series \w{10}: expected"):
        fetch_series(url, STUDY, SERIES, tmp_path / "cache")
    answers.listed = b"no json"
    with pytest.raises(DicomSeriesError, match=r"^series \w{10}: expected"):
        fetch_series(url, STUDY, SERIES, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.dcm"))


def test_no_server_is_said_in_one_line(tmp_path):
    with pytest.raises(DicomSeriesError, match="expected an answer of the DICOMweb server, found") as caught:
        fetch_series(f"http://127.0.0.1:{free_port()}/dicom-web", STUDY, SERIES, tmp_path)
    assert str(caught.value).isprintable()
    assert STUDY not in str(caught.value).split("series ")[0]


@pytest.mark.parametrize(
    ("url", "study", "series"),
    [
        ("file:///etc/passwd", STUDY, SERIES),
        ("http://user:secret@host/", STUDY, SERIES),
        ("http://host/", "../1.2", SERIES),
        ("http://host/", STUDY, "1.2?x=1"),
        ("http://host/", STUDY, "1" * 65),
    ],
)
def test_what_is_no_address_or_uid_is_refused_unasked(tmp_path, url, study, series):
    with pytest.raises(SettingError) as caught:
        fetch_series(url, study, series, tmp_path)
    assert "secret" not in str(caught.value)
