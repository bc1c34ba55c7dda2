"""Other people's models by API, or on this machine: requests, replies, budget and retries."""

LOCAL = "local:"  # before the folder or hub name of a model that is to be loaded here
