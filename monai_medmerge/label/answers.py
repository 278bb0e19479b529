"""Errors as a REST client can read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from fastapi import HTTPException
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

from monai_medmerge.errors import MedMergeError

NOT_FOUND = (MONAILabelError.INVALID_INPUT, MONAILabelError.APP_INIT_ERROR)


@contextmanager
def explained() -> Iterator[None]:
    """Give the reason of an error to the client, where MONAI Label answers "Internal Server Error" and no more.

    Raises:
        HTTPException: 404 for a model or strategy that is not served, 422 for input that cannot be used.
    """
    try:
        yield
    except MONAILabelException as error:
        status = HTTPStatus.NOT_FOUND if error.error in NOT_FOUND else HTTPStatus.INTERNAL_SERVER_ERROR
        raise HTTPException(status, error.msg) from error
    except MedMergeError as error:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error


def not_found(what: str) -> HTTPException:
    """An answer for what the server does not have.

    Args:
        what: that was asked for, and what there is.
    """
    return HTTPException(HTTPStatus.NOT_FOUND, what)
