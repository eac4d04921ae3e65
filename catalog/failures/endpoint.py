"""What the endpoint, or the way to it, tells a client: texts of the edge, of vLLM's answers, and of sockets."""

from __future__ import annotations

from catalog.failures.failure import Failure

ENDPOINT: tuple[Failure, ...] = (
    Failure(
        "edge-configuration",
        r"Fatal errors found in configuration|HAProxy refuses its configuration",
        "HAProxy refuses its configuration",
        "change seatable-vllm:images.haproxy, if it is set; else report it with the lines above",
    ),
    Failure(
        "client-address",
        r"this address is not allowed",
        "the edge lets nobody in from this address",
        "add it to the networks of the client, seatable-vllm:clients",
    ),
    Failure(
        "client-key-elsewhere",
        r"this key is not allowed from this address",
        "the key is that of another client, who sends from other addresses",
        "give each client its own key (scripts/output), or add the address to it in seatable-vllm:clients",
    ),
    Failure(
        "key-refused",
        r"answered 401, wanted (?:200|404)",
        "the endpoint does not know the client's key: the edge has another configuration than the stack",
        "scripts/up brings the stack's keys into force; scripts/output has the present ones",
    ),
    Failure(
        "engine-away",
        r"the engine is starting or has just restarted",
        "the edge works, and the engine behind it does not answer",
        "wait while it loads; scripts/doctor says what its log shows",
        passing=True,
    ),
    Failure(
        "tools-off",
        r'"auto\\?" tool choice requires --enable-auto-tool-choice',
        "a client sends tools, and tool calls are switched off",
        "set seatable-vllm:model.tool_parser to the parser of the model's family",
    ),
    Failure(
        "prompt-too-long",
        r"maximum context length is \d+ tokens|cannot be greater than max_model_len",
        "a client asks for more tokens, prompt and answer together, than the context holds",
        "lower the client's max_tokens, or raise seatable-vllm:model.max_model_len",
        passing=True,
    ),
    Failure(
        "endpoint-name-unknown",
        r"no (?:answer from|TLS with) \S+: \[Errno -\d\] (?:Name or service not known"
        r"|Temporary failure in name resolution|No address associated)",
        "the endpoint's name is not known to DNS here",
        "make the DNS record of seatable-vllm:domain.host",
    ),
    Failure(
        "endpoint-refused",
        r"no (?:answer from|TLS with) \S+: \[Errno 111\]",
        "nothing listens at the endpoint's address",
        "scripts/up starts what is missing; seatable-vllm:ports.edge is the port",
    ),
    Failure(
        "endpoint-no-tls",
        r"no (?:answer from|TLS with) \S+: (?:\[SSL: (?!CERTIFICATE_VERIFY)|EOF occurred in violation)",
        "something answers at the endpoint's address, and does not speak TLS: another program or a proxy",
        "let seatable-vllm:domain.host lead to this machine, and give seatable-vllm:ports.edge to the edge alone",
    ),
    Failure(
        "endpoint-silent",
        r"no (?:answer from|TLS with) \S+: (?:timed out|The read operation timed out|\[Errno 11[03]\])",
        "the endpoint does not answer: a firewall on the way, or an engine that hangs",
        "let this address through to seatable-vllm:ports.edge, or see what scripts/doctor says of the engine",
        passing=True,
    ),
)
