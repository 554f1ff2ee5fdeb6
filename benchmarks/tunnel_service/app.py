"""The same small answer from an application, which is what people mostly put behind a tunnel."""

from fastapi import FastAPI, Response

ANSWER = bytes(100)

app = FastAPI()


@app.get("/small")
async def small() -> Response:
    return Response(ANSWER)
