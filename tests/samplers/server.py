"""A server on loopback that plays vLLM by a policy of its own and knows only what it is told."""

import base64
import io
import json
import threading
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from peft import set_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file

from lightning_sal.policy.fast import FastPolicy
from lightning_sal.samples import Message
from tests.modules.parts import POLICY


def often_ending(policy):
    """The policy with a vocabulary in which every eighth token ends a response."""
    policy.eos_ids = (*policy.eos_ids, *range(0, 400, 8))
    return policy


class FakeVLLM(BaseHTTPRequestHandler):
    """Loads adapters from the folder it is told, reads messages as they come, and answers as vLLM's protocol does."""

    def do_GET(self):
        self.reply(*(self.server.refuse(self.path) or (200, b"")))

    def do_POST(self):
        state = self.server
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state.asked.append((self.path, question))
        route = self.path.split("?")[0].split("/")[-1]
        self.reply(*(state.refuse(self.path) or getattr(self, route)(state, question)))

    def reply(self, code, answer):
        if code == AWAY:
            self.close_connection = True
            return
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def load_lora_adapter(self, state, question):
        name, path = question["lora_name"], question["lora_path"]
        if name in state.adapters:
            return trouble(
                400, f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place"
            )
        if not state.sees(path):
            return trouble(404, f"Loading lora {name} failed: No adapter found for {path}")
        if state.asleep:
            return trouble(500, "asleep")
        state.adapters[name] = load_file(Path(path) / "adapter_model.safetensors")
        return 200, b"Success"

    def unload_lora_adapter(self, state, question):
        if state.adapters.pop(question["lora_name"], None) is None:
            return trouble(404, f"The lora adapter '{question['lora_name']}' cannot be found.")
        return 200, b"Success"

    def completions(self, state, question):
        if state.asleep:
            return trouble(500, "asleep")
        if question["model"] not in state.adapters:
            return trouble(404, f"The model `{question['model']}` does not exist.")
        if question["temperature"] == 0 and question.get("n", 1) > 1:
            return trouble(400, f"n must be 1 when using greedy sampling, got {question['n']}.")
        name = {"model": question["model"]}
        certain = [int(token) for token, bias in question["logit_bias"].items() if bias > 0]
        if certain:
            return 200, name | {"choices": [choice(certain, [state.certainty])]}
        with ACTING:
            return 200, state.spoil(name | respond(state, question))

    def sleep(self, state, question):
        state.asleep = True
        return 200, {"status": "sleeping"}

    def wake_up(self, state, question):
        state.asleep = False
        return 200, {"status": "awake"}

    def log_message(self, *_):
        pass


AWAY = 0  # instead of a status: the connection is cut


def trouble(code, message):
    return code, {"error": {"message": message, "code": code}}


def choice(ids, logp, index=0, reason="stop"):
    content = [{"token": "", "logprob": value} for value in logp]
    return {"index": index, "token_ids": ids, "logprobs": {"content": content}, "finish_reason": reason}


def respond(state, question):
    """Responses of the adapters that are named to the pixels and words that are sent."""
    set_peft_model_state_dict(state.policy.net, state.adapters[question["model"]])
    shown = [part["image_url"]["url"] for turn in question["messages"] for part in turn["content"][:-1]]
    files = [io.BytesIO(base64.b64decode(url.split(",")[1])) for url in shown]
    images = [torch.from_numpy(np.array(Image.open(file))) for file in files]
    turns = [(turn["role"], turn["content"]) for turn in question["messages"]]
    messages = [Message(role, text["text"], len(parts)) for role, (*parts, text) in turns]
    prompts = state.policy.encode_chats([images], [messages], [""])
    rollout = state.policy.sample(
        prompts,
        question["max_completion_tokens"],
        responses=question["n"],
        temperature=question["temperature"],
        generator=torch.Generator().manual_seed(question["seed"]),
    )
    choices = []
    for row, keep in enumerate(rollout.mask):
        ids, logp = rollout.tokens[row, keep], rollout.logp[row, keep]
        reason = "length" if rollout.truncated[row] else "stop"
        choices.append(choice(ids.tolist(), (logp + state.drift(ids)).clamp(max=0).tolist(), row, reason))
    return {"prompt_token_ids": prompts.ids[0].tolist(), "choices": choices[::-1]}


# Of all servers: one that its test has done with may still be at work on what nobody waits for.
ACTING = threading.Lock()


@cache
def actor():
    """The policy that the server answers by."""
    return often_ending(FastPolicy(POLICY))


@contextmanager
def serving(**behaviour):
    """A server that knows the weights that adapters start from, and no adapters."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeVLLM)
    server.policy, server.adapters, server.asked, server.asleep = actor(), {}, [], False
    server.sees = lambda path: Path(path).is_dir()
    server.refuse, server.spoil, server.drift, server.certainty = lambda path: None, lambda answer: answer, zero, 0.0
    for name, value in behaviour.items():
        setattr(server, name, value)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def zero(ids):
    return torch.zeros(len(ids))
