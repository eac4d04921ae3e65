"""A fast stand-in for vLLM: `python bench_upstream.py`, a program of its own with the standard library alone.

It sends the headers of a stream as soon as it has the request's, before it has read the body, and then its events
without computing anything. That is the moment at which some proxies cut a stream. It asks for no key. It prints
its port, serves on the loopback address, and ends when its standard input does.
"""

import asyncio
import json
import os
import re
import signal
import sys
import threading

HEAD = "HTTP/1.1 200 OK\r\ncontent-type: {}\r\n"
MODELS = json.dumps({"object": "list", "data": [{"id": "fast", "object": "model", "max_model_len": 8192}]})


def event(number: int) -> bytes:
    """One event, as a chunk of its own, in the form of vLLM's."""
    choice = {"index": 0, "delta": {"content": f"{number} "}, "token_ids": [number], "finish_reason": None}
    return chunk(f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode())


def chunk(data: bytes) -> bytes:
    """Data in HTTP's chunked form."""
    return b"%x\r\n%s\r\n" % (len(data), data)


async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
    """Answers one stream. length: bytes of the request's body, which may say how long to pause after an event."""
    writer.write((HEAD.format("text/event-stream") + "transfer-encoding: chunked\r\n\r\n").encode())
    await writer.drain()
    wanted = json.loads(await reader.readexactly(length))
    for number in range(wanted["max_tokens"]):
        writer.write(event(number))
        await writer.drain()
        await asyncio.sleep(wanted.get("gap_ms", 0) / 1000)
    writer.write(chunk(b"data: [DONE]\n\n") + chunk(b""))
    await writer.drain()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, request after request, until the other side closes it."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            if head.startswith("get "):
                text = f"{HEAD.format('application/json')}content-length: {len(MODELS)}\r\n\r\n{MODELS}"
                writer.write(text.encode())
                await writer.drain()
                continue
            length = re.search(r"^content-length: *(\d+)", head, re.MULTILINE)
            await stream(reader, writer, int(length[1]) if length else 0)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # they closed it
    finally:
        writer.close()


async def main() -> None:
    """Serves until the process ends."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def end_with_parent() -> None:
    """Ends the process when whoever started it closes its standard input, or is gone."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted parent ends it
    threading.Thread(target=end_with_parent, daemon=True).start()
    asyncio.run(main())
