"""A minimal server for comparison: FastAPI around `transformers.pipeline`.

Started by `bench.py`; not part of any image.
"""

import argparse

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--port", type=int, required=True)
arguments = parser.parse_args()

app = FastAPI()
pipe = pipeline("text-generation", model=arguments.model)


class ChatRequest(BaseModel):
    prompt: str
    generate_kwargs: dict = {}


@app.get("/health")
def health() -> dict:
    return {"status": "Healthy"}


@app.post("/chat")
def chat(request: ChatRequest) -> dict:
    return {"Result": pipe(request.prompt, **request.generate_kwargs)[0]["generated_text"]}


uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")
