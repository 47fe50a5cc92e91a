"""A function that asks a model a question. It knows nothing of who chooses the model."""

from openai import AsyncOpenAI

client = AsyncOpenAI()


async def answer(question: str) -> str:
    completion = await client.chat.completions.create(
        model="llama-3.1-nemotron-51b-instruct", messages=[{"role": "user", "content": question}]
    )
    return completion.choices[0].message.content or ""
