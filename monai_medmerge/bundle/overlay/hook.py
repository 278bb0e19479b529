"""What `medmerge.json` imports, so that the overlay takes part wherever the file stands in the list of config files."""

from __future__ import annotations

import logging
from typing import Any

from monai.bundle import ConfigExpression, ConfigWorkflow, ReferenceResolver

from monai_medmerge.bundle.configuration import calling_workflow
from monai_medmerge.bundle.overlay.workflow import MergedWorkflow, reason_last
from monai_medmerge.bundle.settings import tell_in_one_line

logger = logging.getLogger(__name__)


def __getattr__(name: str) -> object:
    # Note [Why an import and not only `initialize`]
    # A config file that comes after the overlay replaces `initialize` and `finalize`, and the training would pass for
    # a merged one. An import statement under an id of the overlay's own is replaced by nobody, and MONAI's resolver
    # evaluates it before anything else, asking this module for the name once for every workflow.
    if name != "overlay":
        raise AttributeError(name)
    tell_in_one_line()
    workflow = calling_workflow()
    if workflow is None:
        logger.warning("medmerge.json takes part in `python -m monai.bundle run` alone: nothing is merged here")
    elif not isinstance(workflow, MergedWorkflow):
        _guard(workflow)
    return _guard


def _guard(workflow: ConfigWorkflow) -> None:
    """Before anything is evaluated the overlay is installed; after all of the run the overlay has merged."""
    running = _expressions(workflow, workflow.run_id)
    for expression in [*_expressions(workflow, workflow.init_id), *running]:
        _surround(expression, workflow, is_last=expression in running[-1:])


def _expressions(workflow: ConfigWorkflow, name: str) -> list[ConfigExpression]:
    name = ReferenceResolver.normalize_id(name)
    content = workflow.parser.get(name)
    ids = [f"{name}::{number}" for number in range(len(content))] if isinstance(content, list) else [name]
    found = [workflow.parser.ref_resolver.items.get(one) for one in ids]
    # Imports among them are evaluated with all others, long before the run.
    return [i for i in found if isinstance(i, ConfigExpression) and not i.is_import_statement(i.get_config())]


def _surround(expression: ConfigExpression, workflow: ConfigWorkflow, is_last: bool) -> None:
    evaluate = expression.evaluate

    def evaluate_with_overlay(*arguments: Any, **keywords: Any) -> Any:
        with reason_last():
            overlay = workflow.parser.get_parsed_content("medmerge")
            overlay.install(workflow)
            result = evaluate(*arguments, **keywords)
            if is_last:
                overlay.finish()
        return result

    expression.evaluate = evaluate_with_overlay
