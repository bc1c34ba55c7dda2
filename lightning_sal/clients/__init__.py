"""Other people's models by API, or on this machine: requests, replies, budget and retries."""
