"""Takes down how many of something a customer orders. It knows nothing of who trains it, and has no examples."""

from openai import AsyncOpenAI

SYSTEM = "You take down orders. Say how many are ordered."

client = AsyncOpenAI()


async def take_down(message: str) -> str:
    asked = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": message}]
    answer = await client.chat.completions.create(model="gpt-4o-mini", messages=asked, max_tokens=24)
    return answer.choices[0].message.content or ""
