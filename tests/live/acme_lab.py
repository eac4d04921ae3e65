"""A Route 53 that is moto's, and a DNS server that answers from its zone: `python acme_lab.py ZONE`.

A program of its own, run by a Python that has moto and dnslib (see `acme_support.py`). It prints one JSON object
with its ports and ends when its standard input does. HTTPS proxy: everything that is asked of AWS through it is
answered by moto. DNS: every name has the address 127.0.0.1, and TXT records are those of the zone.
"""

import json
import os
import sys
import threading
from http.server import ThreadingHTTPServer
from typing import Any

from dnslib import QTYPE, RR, SOA, TXT, A  # type: ignore[import-not-found]
from dnslib.server import DNSServer  # type: ignore[import-not-found]
from moto.backends import get_backend
from moto.moto_proxy.proxy3 import CertificateCreator, ProxyRequestHandler  # type: ignore[attr-defined]

ACCOUNT = "123456789012"
HERE = "127.0.0.1"


class Zone:
    """Answers from the zone that moto keeps."""

    def __init__(self, zone: Any) -> None:
        self._zone = zone

    def resolve(self, request: Any, handler: object) -> Any:
        """TXT from moto, the zone's SOA for itself alone, 127.0.0.1 for every A, nothing for all else."""
        reply, name, kind = request.reply(), str(request.q.qname), QTYPE[request.q.qtype]
        if kind == "A":
            reply.add_answer(RR(name, QTYPE.A, rdata=A(HERE), ttl=1))
        elif kind == "SOA" and name == self._zone.name:
            reply.add_answer(RR(name, QTYPE.SOA, rdata=SOA(f"ns.{name}", f"admin.{name}"), ttl=1))
        elif kind == "TXT":
            for found in list(self._zone.rrsets):
                if found.type == "TXT" and found.name.rstrip(".") == name.rstrip("."):
                    for text in found.records:
                        reply.add_answer(RR(name, QTYPE.TXT, rdata=TXT(text.strip('"')), ttl=1))
        return reply


class Proxy(ProxyRequestHandler):
    """moto's, which ends each connection after one answer, and here says so: Go would send a second request."""

    def end_headers(self) -> None:
        """Adds what is missing to an answer."""
        if self.command != "CONNECT":
            self.send_header("Connection", "close")
        super().end_headers()


def main() -> None:
    """Serves until standard input ends."""
    os.environ["TEST_PROXY_MODE"] = "true"
    route53 = get_backend("route53")[ACCOUNT]["aws"]
    zone = route53.create_hosted_zone(f"{sys.argv[1]}.", private_zone=False)
    proxy = ThreadingHTTPServer((HERE, 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    dns = DNSServer(Zone(zone), address=HERE, port=0)
    dns.start_thread()
    told = {
        "proxy": proxy.server_address[1],
        "dns": dns.server.server_address[1],
        "zone_id": zone.id.rpartition("/")[2],
        "aws_ca": CertificateCreator.cacert,
    }
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    os._exit(0)


main()
