"""Schemathesis against the real gateway: requests as the description allows and as it forbids, and no defect."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from services.gateway.http.openapi import build_document

DEADLINE_PASSED = 504
"""What a request that grants a millisecond asks for."""


def no_defect(context, response, case):
    if response.status_code >= 500 and response.status_code != DEADLINE_PASSED:
        raise AssertionError(f"{response.status_code}: {response.text}")
    if response.status_code >= 400 and response.request.method != "HEAD":
        told = response.json()
        assert told["status"] == response.status_code
        assert [told["request_id"]] == response.headers["x-request-id"]


CHECKS = [
    no_defect,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]

schema = schemathesis.openapi.from_dict(build_document())


def check(case, site):
    case.validate_response(case.call(base_url=site.address, session=site.session), checks=CHECKS)


@schema.parametrize()
@settings(max_examples=5, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_finds_a_defect(case, site):
    check(case, site)


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_none_of_many_requests_finds_a_defect(case, site):
    check(case, site)
