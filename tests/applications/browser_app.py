"""A FastAPI application whose page tries all that a browser does, and says what it found."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import trio
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, Response, StreamingResponse

app = FastAPI()

IMAGES = 30

PAGE = (
    f"""<!doctype html>
<html lang="en">
<title>An application without a port</title>
<style>body {{ font: 16px sans-serif }} img {{ margin: 2px }}</style>
<h1>An application that listens nowhere</h1>
<p>{"".join(f'<img src="/image/{n}" width="48" height="48" alt="">' for n in range(IMAGES))}</p>
<pre id="answers">working</pre>
"""
    + """
<script>
async function fetched() {
  const numbers = Array.from({length: 20}, (_, n) => n);
  const answers = await Promise.all(numbers.map(n => fetch(`/number/${n}`)));
  return Promise.all(answers.map(answer => answer.json()));
}

function events() {
  return new Promise((resolve, reject) => {
    const heard = [];
    const source = new EventSource("/events");
    source.onmessage = event => {
      heard.push(event.data);
      if (heard.length === 3) { source.close(); resolve(heard); }
    };
    source.onerror = reject;
  });
}

function websocket() {
  return new Promise((resolve, reject) => {
    const heard = [];
    const socket = new WebSocket(location.origin.replace("http", "ws") + "/reverse");
    socket.onopen = () => socket.send("hello");
    socket.onmessage = event => {
      heard.push(event.data);
      if (heard.length === 1) socket.send("world"); else socket.close(1000);
    };
    socket.onclose = event => resolve([heard, [event.code, event.wasClean]]);
    socket.onerror = reject;
  });
}

async function main() {
  const images = await Promise.all([...document.images].map(image => image.decode()));
  const upload = await fetch("/upload", {method: "POST", body: new Uint8Array(3_000_000)});
  const download = await (await fetch("/download")).arrayBuffer();
  const [[words, closed], heard, numbers] =
    await Promise.all([websocket(), events(), fetched()]);
  const {scheme, client} = await (await fetch("/scope")).json();
  const answers = {
    images: images.length,
    fetched: numbers,
    uploaded: await upload.json(),
    downloaded: download.byteLength,
    events: heard,
    websocket: words,
    closed: closed,
    protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol,
    scheme: scheme,
    client: client,
  };
  const lines = Object.entries(answers).map(([name, said]) => `${name}: ${JSON.stringify(said)}`);
  document.getElementById("answers").textContent = lines.join("\\n");
  await fetch("/answers", {method: "POST", body: JSON.stringify(answers)});
}

main().catch(error => fetch("/answers", {method: "POST", body: JSON.stringify(String(error))}));
</script>
</html>
"""
)


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.get("/image/{number}")
async def image(number: int) -> Response:
    colour = f"hsl({number * 360 // IMAGES} 70% 55%)"
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="48" height="48">'
    svg += f'<rect width="48" height="48" rx="8" fill="{colour}"/></svg>'
    return Response(svg, media_type="image/svg+xml", headers={"cache-control": "no-store"})


@app.get("/number/{number}")
async def number(number: int) -> int:
    await trio.sleep(0.01)
    return number


@app.post("/upload")
async def upload(request: Request) -> int:
    return sum([len(chunk) async for chunk in request.stream()])


@app.get("/download")
async def download() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(100_000)

    return StreamingResponse(chunks())


@app.get("/events")
async def events() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for word in ("one", "two", "three"):
            yield f"data: {word}\n\n"
            await trio.sleep(0.05)
        await trio.sleep(30)  # the page closes it

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.websocket("/reverse")
async def reverse(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text((await websocket.receive_text())[::-1])
    except WebSocketDisconnect:
        pass


@app.get("/scope")
async def scope(request: Request) -> dict[str, str]:
    assert request.client is not None
    return {"scheme": request.url.scheme, "client": request.client.host}


@app.post("/answers")
async def answers(request: Request) -> None:
    said = json.loads(await request.body())
    path = Path(os.environ["ANSWERS"])
    part = path.with_suffix(".part")
    part.write_text(json.dumps(said))
    part.rename(path)
