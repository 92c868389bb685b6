"""The OpenAPI document: it names every answer, and what it says of answers is so."""

from __future__ import annotations

import pytest

jsonschema = pytest.importorskip("jsonschema", reason="instale com: pip install jsonschema")

TEXT = {"model": "base", "prompt": ["Maria", "O rio"], "n": 2, "max_tokens": 3, "logprobs": 1, "echo": True}
CHAT = {
    "model": "conversa",
    "messages": [{"role": "user", "content": "Oi"}],
    "max_tokens": 3,
    "logprobs": True,
}


@pytest.fixture(scope="module")
def document(http):
    return http.get("/openapi.json").json()


@pytest.mark.parametrize(("path", "body"), [("/v1/completions", TEXT), ("/v1/chat/completions", CHAT)])
def test_an_answer_is_what_the_document_says(http, document, path, body):
    operation = document["paths"][path]["post"]
    answers = operation["responses"]
    assert set(answers) == {"200", "4XX", "5XX"}
    assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}
    schema = answers["200"]["content"]["application/json"]["schema"] | {"components": document["components"]}
    jsonschema.validate(http.post(path, json=body).json(), schema)
    refused = http.post(path, json=body | {"n": 0})
    error = answers["4XX"]["content"]["application/json"]["schema"] | {"components": document["components"]}
    assert refused.status_code == 400
    jsonschema.validate(refused.json(), error)
    request = operation["requestBody"]["content"]["application/json"]["schema"]
    request = request | {"components": document["components"]}
    jsonschema.validate(body, request)
    for wrong in (
        {"n": "1"},
        {"temperature": -1},
        {"stop": [""]},
        {"logit_bias": {"1": 101}},
        {"seed": 2**63 + 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(body | wrong, request)
        assert http.post(path, json=body | wrong).status_code == 400


def test_no_route_announces_the_422_that_it_never_answers(document):
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"], path
