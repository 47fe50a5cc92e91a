"""An OpenAI-compatible endpoint on this machine that answers from a table of recorded scores, for every model in it.

The table says what each model's answer to a question was worth, not the answer: that score is what is answered here. It
says no tokens either: every call counts as `TOKENS` of the prompt, so the dollars of a rollout are the model's price.

    python endpoint.py                # serves data/answers.jsonl on port 8123, until Ctrl-C
"""

import asyncio
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
PORT = 8123
TOKENS = 1000


def table_of(path: Path) -> dict[str, dict[str, float]]:
    """Scores by model, by question."""
    with path.open(encoding="utf-8") as lines:
        return {row["question"]: row["scores"] for row in map(json.loads, lines)}


def answer_of(table: dict[str, dict[str, float]], request: dict) -> tuple[int, dict]:
    """Status and body of the answer to a chat completion."""
    model, question = request["model"], request["messages"][-1]["content"]
    score = table.get(question, {}).get(model)
    if score is None:
        return 404, {"error": {"message": f"nothing is recorded of {model} on this question", "type": "not_found"}}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": repr(score)}}
    usage = {"prompt_tokens": TOKENS, "completion_tokens": 0, "total_tokens": TOKENS}
    return 200, {
        "id": "recorded",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [choice],
        "usage": usage,
    }


async def serve(table: dict[str, dict[str, float]], port: int = PORT) -> None:
    """Answers until it is cancelled."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
                request = await reader.readexactly(int(headers[b"content-length"]))
                status, body = answer_of(table, json.loads(request))
                content = json.dumps(body).encode()
                writer.write(
                    b"HTTP/1.1 %d x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (status, len(content), content)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", port, limit=1 << 20)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    print(f"answers at http://127.0.0.1:{PORT}/v1")
    try:
        asyncio.run(serve(table_of(HERE / "data" / "answers.jsonl")))
    except KeyboardInterrupt:
        sys.exit(0)
