"""What pytest must not import where it is not installed."""

from importlib.util import find_spec

# MONAI Label has an environment of its own, `.venv-label`; its tests and doctests run there: make test-label.
NEED_MONAI_LABEL = [
    "__main__", "answers", "app/main", "door/ending", "door/middleware", "infer", "scoring", "served", "train",
]  # fmt: skip
collect_ignore = (
    [f"monai_medmerge/label/{name}.py" for name in NEED_MONAI_LABEL] if find_spec("monailabel") is None else []
)
