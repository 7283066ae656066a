"""The application: routes of one or several models, for uvicorn and for Ray Serve alike."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from imagegen_dist import __version__
from imagegen_dist.inference.told import Labels
from imagegen_dist.serving.access import BodyTooLarge
from imagegen_dist.serving.batching import Overloaded
from imagegen_dist.serving.connection import Timed, while_connected
from imagegen_dist.serving.endpoint import Endpoint
from imagegen_dist.serving.formats import MEDIA_TYPES
from imagegen_dist.serving.lines import Lines
from imagegen_dist.serving.requests import Decode, Generate, Seed, Steps
from imagegen_dist.serving.served import NotOffered, Served
from imagegen_dist.serving.stats import Stats
from imagegen_dist.serving.stream import stream

_PAGE_FILES = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
_SUMMARY = "Samples of trained models. A sample is a function of its seed and class, as `imagegen sample` makes it."


def create_app(models: Sequence[Served]) -> FastAPI:
    """The routes below "/" for the first model, and below "/models/NAME" for each."""
    stats = Stats()
    endpoints = [Endpoint(served, stats) for served in models]

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(task) for endpoint in endpoints for task in endpoint.tasks()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(
        title="imagegen_dist", version=__version__, summary=_SUMMARY, lifespan=running, docs_url=None, redoc_url=None
    )
    for endpoint in endpoints:
        app.include_router(_routes(endpoint, stats), prefix=f"/models/{endpoint.served.name}")
    app.include_router(_common_routes(endpoints, stats))
    app.include_router(_routes(endpoints[0], stats))  # the last: it has files of any name
    _answer_errors(app)
    app.add_middleware(Timed, stats=stats)
    return app


def _routes(endpoint: Endpoint, stats: Stats) -> APIRouter:
    """What one model answers."""
    routes, served = APIRouter(), endpoint.served

    @routes.post("/generate", response_class=Response)
    async def generate(body: Generate, request: Request) -> Response:
        """Samples by seed as a picture, film, mesh or array."""
        data = await while_connected(request, endpoint.generate(body))
        return Response(data, media_type=MEDIA_TYPES[body.format])

    @routes.post("/decode", response_class=Response)
    async def decode(body: Decode, request: Request) -> Response:
        """Samples of latents as a picture, film, mesh or array."""
        data = await while_connected(request, endpoint.generate(body))
        return Response(data, media_type=MEDIA_TYPES[body.format])

    @routes.post("/encode")
    async def encode(request: Request, labelled: str = "") -> dict[str, Any]:
        """Latents of the picture or .npy that is the body. labelled: its class or conditions, as JSON."""
        if not labelled and served.model.told.width:
            raise ValueError(
                "this model is conditional: say what the sample is, ?labelled=CLASS or ?labelled={PART: VALUE}"
            )
        label = _label_of(labelled, served)
        return {"latents": await endpoint.encode(await request.body(), label)}

    @routes.post("/project", response_class=Response)
    async def project(
        request: Request, labelled: str = "", steps: Steps = 300, seed: Seed | None = None, each: bool = False
    ) -> Response:
        """Search the picture or .npy that is the body in the model, and tell each step as a line of JSON.

        labelled: its class or conditions, as JSON, which are found too if they are left out. seed: of the samples among
        which the start is. each: tell the latents of each step, too. What is transparent in a picture is free.
        """
        return Lines(*await endpoint.project(await request.body(), _label_of(labelled, served), steps, seed, each))

    @routes.get("/model.json")
    async def model() -> dict[str, Any]:
        """What the model is, and what its page shows of it."""
        return await endpoint.in_thread(endpoint.page.document)

    @routes.post("/rows", response_class=Response)
    async def rows(request: Request, decoded: bool = False) -> Response:
        """Samples for a page: float32 latents and labels in, stored values out."""
        data = await while_connected(request, endpoint.rows(await request.body(), decoded))
        return Response(data, media_type="application/octet-stream")

    @routes.post("/rows/encode", response_class=Response)
    async def encode_rows(request: Request) -> Response:
        """Latents for a page: float32 samples and labels in, float32 latents out."""
        return Response(await endpoint.encode_rows(await request.body()), media_type="application/octet-stream")

    @routes.get("/", response_class=Response)
    async def page() -> Response:
        """The page of the model."""
        return await file("index.html")

    @routes.get("/{name}", response_class=Response)
    async def file(name: str) -> Response:
        """A file of the page."""
        if name not in _PAGE_FILES:
            return JSONResponse({"detail": "not found"}, 404)
        try:
            files = await endpoint.in_thread(endpoint.page.files)
        except LookupError as error:
            return JSONResponse({"detail": str(error)}, 404)
        return Response(files[name], media_type=_PAGE_FILES[name])

    @routes.websocket("/stream")
    async def streaming(socket: WebSocket) -> None:
        await stream(socket, endpoint, stats)

    return routes


def _common_routes(endpoints: Sequence[Endpoint], stats: Stats) -> APIRouter:
    routes = APIRouter()

    @routes.get("/models.json")
    async def models() -> list[dict[str, Any]]:
        """What all models are."""
        return [endpoint.served.description() for endpoint in endpoints]

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """That the server answers."""
        return {"status": "ok"}

    @routes.get("/stats")
    async def summary() -> dict[str, Any]:
        """Latencies, batch sizes, and what waits."""
        waiting = {endpoint.served.name: endpoint.batcher.waiting for endpoint in endpoints}
        projecting = {endpoint.served.name: endpoint.projecting for endpoint in endpoints}
        return {**stats.summary(), "waiting": waiting, "projecting": projecting}

    @routes.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """The same for Prometheus."""
        return Response(stats.prometheus(), media_type="text/plain; version=0.0.4")

    return routes


def _label_of(labelled: str, served: Served) -> Labels | None:
    """The label of one sample from a query: a class number or name, or conditions by part; None if it has none."""
    if not labelled:
        return None
    try:
        given: Any = json.loads(labelled) if labelled[0] in '{"[' or labelled.isdecimal() else labelled
    except json.JSONDecodeError as error:
        raise ValueError(f"labelled is no JSON: {error}") from None
    told = served.model.told
    return told.labels(1, given) if told.conditions is None else told.labels(1, conditions=given)


def _answer_errors(app: FastAPI) -> None:
    """One line for each mistake: 422 for what cannot be made, 413 for too much, 501 for what is not offered.

    503 where too many wait.
    """

    def said(status: int, headers: dict[str, str] | None = None) -> Callable[[Request, Exception], JSONResponse]:
        def answer(_: Request, error: Exception) -> JSONResponse:
            return JSONResponse({"detail": str(error)}, status, headers)

        return answer

    def unreadable(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse({"detail": "; ".join(map(_line_of, error.errors()))}, 422)

    app.add_exception_handler(RequestValidationError, unreadable)
    app.add_exception_handler(ValueError, said(422))
    app.add_exception_handler(BodyTooLarge, said(413))
    app.add_exception_handler(NotOffered, said(501))
    app.add_exception_handler(Overloaded, said(503, {"retry-after": "1"}))


def _line_of(error: Mapping[str, Any]) -> str:
    """One mistake in a body: where it is, and what."""
    where = ".".join(str(part) for part in error["loc"] if part != "body")
    return f"{where or 'the body'}: {error['msg']}"
