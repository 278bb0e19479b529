"""The report of a small merge with hostile names, written once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluation.reports import CLASSES, EVIL, PATIENT, batches, build

from monai_medmerge import Source, coefficients, match, merge
from monai_medmerge.evaluation import Naming, check, compare, contributions
from monai_medmerge.evaluation.report.assembly import ReportContent
from monai_medmerge.evaluation.report.page import write_report
from monai_medmerge.evaluation.similarity import layer_similarity
from monai_medmerge.ranking.order import rank


@pytest.fixture(scope="session")
def content() -> ReportContent:
    torch.manual_seed(0)
    network, data = build(), batches()
    sources = [Source(n, build().state_dict(), {"file": f"{PATIENT}.pt", "note": PATIENT}) for n in ("chest", EVIL)]
    sources.append(Source("copy", sources[0].tensors))
    merged = merge(network, sources, exclude=["fc.*"])
    found = compare(
        build(),
        build(),
        data,
        CLASSES,
        subgroups=["site"],
        patient="patient",
        training_data=data,
        naming=Naming(salt="s"),
        samples=200,
    )
    names = [source.name for source in sources]
    return ReportContent(
        title=f"Breast {EVIL}",
        purpose="A test.",
        sources=sources,
        about={"chest": {"data": "chest X-ray, T1/T2", "licence": "CC BY 4.0", "reference": "https://example.org/a"}},
        match=match(network, sources),
        ranking=rank(network, sources, data),
        contributions=contributions(coefficients(merged), names),
        coefficients=coefficients(merged),
        similarity=layer_similarity(merged, network, sources, data),
        course={name: [(0, 0.3), (1, 0.4)] for name in names},
        curves={EVIL: [(1, 0.7), (2, 0.5)]},
        stages={"merged": {"macro_f1": 0.5, "interval": [0.4, 0.6]}, f"tuned {EVIL}": {"macro_f1": 0.6, "cases": 48}},
        comparison=found,
        gate=check(found),
        settings={"dataset_dir": f"/ward/{PATIENT}", "files": [f"C:\\{PATIENT}.pt"], "granularity": "kernel"},
        seeds={"training": 0},
        command=["python", "-m", "monai.bundle", "run", "--config_file", "configs/verify.json", f"--site=/x/{PATIENT}"],
    )


@pytest.fixture(scope="session")
def written(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_report(tmp_path_factory.mktemp("report"), content)
