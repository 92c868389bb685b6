"""The OpenAPI document against the server. schemathesis 4.32 found what these tests keep, by hand:

schemathesis run URL/openapi.json --phases coverage,fuzzing --max-examples 20 --seed 1
"""

from __future__ import annotations

import pytest

METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def document(http):
    return http.get("/openapi.json").json()


def test_a_method_that_a_path_has_not_is_405_whatever_the_body(document, http):
    tried = 0
    for path, declared in document["paths"].items():
        for method in set(METHODS) - set(declared):
            for headers in ({}, {"content-type": "text/plain"}):
                answer = http.request(method, path.replace("{name}", "conversa"), headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
                assert answer.headers["allow"]
                tried += 1
    assert tried > 40


def test_what_is_answered_is_of_a_kind_that_the_document_names(document, http):
    for path, declared in document["paths"].items():
        if "get" in declared and "{" not in path:
            kinds = declared["get"]["responses"]["200"]["content"]
            assert http.get(path).headers["content-type"].split(";")[0] in kinds, path


def test_embeddings_are_refused_by_name_with_and_without_a_body(http):
    for body in (None, {"model": "base", "input": "a"}):
        answer = http.post("/v1/embeddings", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "embeddings_not_supported")


def test_generating_routes_document_their_answer_and_their_stream(document):
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/responses"):
        kinds = document["paths"][path]["post"]["responses"]["200"]["content"]
        assert set(kinds) == {"application/json", "text/event-stream"}
