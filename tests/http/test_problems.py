"""Every refusal is a problem document, whoever refuses: our code, the framework, or the server below both."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

import app as package
from app import problems
from app.domain import errors
from app.domain.errors import Busy, InvalidNotice, NodeFault, NotAuthenticated, StaleReference, VerbaleError
from tests.http.edge_node import URL, Client, EdgeNode, make_app, open_node

MEMBERS = {"type", "title", "status", "detail", "instance"}


@pytest.fixture
def node(sqlite_url: str) -> Iterator[EdgeNode]:
    opened = open_node(sqlite_url)
    yield opened
    opened.db.dispose()


class Thing(BaseModel):
    number: int


def broken_app(node: EdgeNode) -> FastAPI:
    """The app with a route for each way to fail."""
    app = make_app(node)

    @app.get("/raise/{name}")
    def fail(name: str) -> None:
        raised: dict[str, Exception] = {
            "crash": RuntimeError("password=hunter2 in /srv/secret"),
            "node": NodeFault("The key file /srv/secret is gone."),
            "busy": Busy("Full."),
            "anonymous": NotAuthenticated("Who are you?"),
            "notice": InvalidNotice([("/body/items", "list at least one item")]),
        }
        raise raised[name]

    @app.post("/things")
    def take(thing: Thing) -> Thing:
        return thing

    return app


def all_errors() -> set[type[VerbaleError]]:
    for module in pkgutil.walk_packages(package.__path__, "app."):
        if not module.name.startswith("app.cli") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(family: type[VerbaleError]) -> Iterator[type[VerbaleError]]:
        yield family
        for member in family.__subclasses__():
            yield from below(member)

    # The command line's own errors never become an answer; another test may have imported them.
    return {
        e
        for e in below(VerbaleError)
        if e.__module__.startswith("app.") and not e.__module__.startswith("app.cli")
    }


def test_every_error_has_a_row_under_its_own_code() -> None:
    assert {e.__qualname__ for e in all_errors() if e.code not in problems.PROBLEMS} == set()


def test_no_row_is_left_over() -> None:
    of_the_framework = {"internal-error", "method-not-allowed"}
    assert problems.PROBLEMS.keys() - {e.code for e in all_errors()} == of_the_framework


def test_every_family_in_the_domain_has_its_own_code() -> None:
    named = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, VerbaleError)]
    assert len({e.code for e in named}) == len(named)


def test_the_documentation_is_what_the_table_says() -> None:
    written = (Path(package.__file__).parent.parent / "docs" / "problems.md").read_text("utf-8")
    assert written == problems.markdown(), "run: python -m app.problems > docs/problems.md"
    assert all(f"\n## {code}\n" in written for code in problems.PROBLEMS)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nowhere", None, 404, "not-found"),
        ("DELETE", "/v1/notices", None, 405, "method-not-allowed"),
        ("POST", "/things", b'{"number": "x"}', 422, "malformed-request"),
        ("POST", "/things", b"{", 422, "malformed-request"),
        ("GET", "/v1/notices?party=", None, 400, "invalid-filter"),
        ("GET", "/v1/notices?cursor=AAAA", None, 400, "invalid-cursor"),
        ("GET", "/v1/notices/nonsense", None, 404, "not-found"),
        ("GET", "/v1/states/ZZ", None, 404, "not-found"),
        ("GET", "/raise/crash", None, 500, "internal-error"),
        ("GET", "/raise/node", None, 500, "node-fault"),
        ("GET", "/raise/busy", None, 503, "busy"),
        ("GET", "/raise/anonymous", None, 401, "not-authenticated"),
        ("GET", "/raise/notice", None, 422, "invalid-notice"),
        ("POST", "/v1/notices", b"nonsense", 422, "malformed-json"),
    ],
)
def test_every_refusal_is_a_problem_document(
    node: EdgeNode, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    client = Client(broken_app(node))
    answer = client.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document.keys() >= MEMBERS
    assert document["status"] == status
    assert document["type"] == f"{URL}/problems#{code}"
    assert document["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"


def test_the_type_opens_a_page_that_explains_it(node: EdgeNode) -> None:
    client = Client(make_app(node))
    address = urlsplit(client.get("/nowhere").json()["type"])
    page = client.get(address.path)
    assert page.status_code == 200
    assert f'id="{address.fragment}"' in page.text


def test_a_fault_of_the_node_tells_nothing_of_its_inside(node: EdgeNode) -> None:
    client = Client(broken_app(node))
    for name in ("crash", "node"):
        answer = client.get(f"/raise/{name}")
        assert "secret" not in answer.text
        assert "hunter2" not in answer.text


def test_a_fault_is_logged_under_its_instance_without_what_it_quotes(
    node: EdgeNode, caplog: pytest.LogCaptureFixture
) -> None:
    from app.observability import JsonFormatter

    caplog.set_level("INFO")
    answer = Client(broken_app(node)).get("/raise/crash?party=Acme")
    lines = [JsonFormatter().format(record) for record in caplog.records if record.name == "verbale"]
    said = [orjson.loads(line) for line in lines]
    crash = next(line for line in said if line["action"] == "http.crash")
    assert crash["error"]["type"] == "RuntimeError"
    assert any("test_problems.py" in frame for frame in crash["error"]["frames"])
    # Nodes that other tests keep running in this process log their requests too.
    requests = [line for line in said if line["action"] == "http.request"]
    (request,) = (line for line in requests if line["route"] == "/raise/{name}")
    assert request["status"] == 500
    assert not any("Acme" in line or "hunter2" in line for line in lines)
    assert answer.status_code == 500


def test_a_401_says_how_and_a_503_says_when(node: EdgeNode) -> None:
    client = Client(broken_app(node))
    assert client.get("/raise/anonymous").headers["www-authenticate"].startswith("Bearer")
    assert int(client.get("/raise/busy").headers["retry-after"]) > 0
    assert "DELETE" not in client.request("DELETE", "/v1/notices").headers["allow"]


def test_every_fault_of_a_notice_is_pointed_at(node: EdgeNode) -> None:
    answer = Client(broken_app(node)).get("/raise/notice").json()
    assert answer["errors"] == [{"pointer": "/body/items", "detail": "list at least one item"}]
    answer = Client(broken_app(node)).post("/things", json={"number": "x"}).json()
    assert answer["errors"][0]["pointer"] == "/number"


def test_an_extension_tells_the_current_version(node: EdgeNode) -> None:
    error = StaleReference("There is a newer version.", "01" * 32)
    assert problems.document(error, URL)["current"] == "01" * 32


def test_an_error_without_a_row_is_answered_as_its_family() -> None:
    class Unlisted(Busy):
        code = "unlisted"

    Unlisted.__module__ = "tests"
    assert problems.problem_of(Unlisted("Full."))[0] == "busy"
