"""Whether a server answers at all, told in seconds where libraries try again for minutes."""

from __future__ import annotations

import ssl
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

SECONDS = 5  # that a server has to answer


def fault_of(address: str) -> OSError | None:
    """Why nothing answers at an address, through the proxies of the environment; None where something does.

    Args:
        address: Of HTTP. Its certificates are for whoever asks there to judge.
    """
    try:
        urlopen(Request(address, method="HEAD"), timeout=SECONDS).close()
    except HTTPError:
        return None
    except URLError as error:
        reason = error.reason if isinstance(error.reason, OSError) else error
        return None if isinstance(reason, ssl.SSLError) else reason
    except OSError as error:
        return error
    return None
