"""The way to a machine behind SSH: OpenSSH's own texts, and those that Docker passes on from it."""

from __future__ import annotations

from catalog.failures.failure import Failure

SSH: tuple[Failure, ...] = (
    Failure(
        "ssh-name-unknown",
        r"ssh: Could not resolve hostname",
        "the machine's name is not known to DNS",
        "correct the host in seatable-vllm:machine.ssh (or machine.jump)",
    ),
    Failure(
        "ssh-key-missing",
        r"Identity file \S+ not accessible",
        "the private key for SSH is not there",
        "set seatable-vllm:machine.ssh_key to the path of a private key on this computer",
    ),
    Failure(
        "ssh-key-open",
        r"UNPROTECTED PRIVATE KEY FILE|Load key .*: bad permissions",
        "others can read the private key for SSH, so ssh passes it over",
        "chmod 600 the file of seatable-vllm:machine.ssh_key",
    ),
    Failure(
        "ssh-key-unreadable",
        r"Load key .*: (?:error in libcrypto|invalid format|incorrect passphrase)",
        "the file given as private key for SSH is none that ssh can read",
        "set seatable-vllm:machine.ssh_key to the private half of a key (not the .pub file)",
    ),
    Failure(
        "ssh-host-key-changed",
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed",
        "another machine answers at this address, or it was set up anew",
        "make sure that it is yours, then set seatable-vllm:machine.host_key to its key (ssh-keyscan HOST); where "
        "that is not set, take the old line out of known_hosts (ssh-keygen -R)",
    ),
    Failure(
        "ssh-host-key-unknown",
        r"No \S+ host key is known for|Host key verification failed",
        "the machine's host key is not the one that was given, or none was",
        "set seatable-vllm:machine.host_key to the machine's key (ssh-keyscan HOST), or leave it out",
    ),
    Failure(
        "ssh-denied",
        r"Permission denied \([a-z,-]*publickey|unable to authenticate, attempted methods"
        r"|Too many authentication failures",
        "the machine refuses the user or the key (a new machine also does so until its first boot is done)",
        "check the user in seatable-vllm:machine.ssh and seatable-vllm:machine.ssh_key; a key with a passphrase "
        "has to be in the agent (ssh-add)",
    ),
    Failure(
        "ssh-jump",
        r"stdio forwarding failed|channel \d+: open failed: (?:connect failed|administratively prohibited)",
        "the jump host lets us in, but cannot reach the machine behind it",
        "check seatable-vllm:machine.ssh as the jump host sees it, and seatable-vllm:machine.jump",
    ),
    Failure(
        "ssh-refused",
        r"ssh: connect to host \S+ port \d+: Connection refused",
        "the machine is there, but no SSH server answers on this port: it is booting, or listens on another",
        "wait and run up again, or correct the port in seatable-vllm:machine.ssh (USER@HOST:PORT)",
    ),
    Failure(
        "ssh-timeout",
        r"ssh: connect to host \S+ port \d+: (?:Connection timed out|Operation timed out|No route to host"
        r"|Network is unreachable)|Connection timed out during banner exchange",
        "the machine does not answer: switched off, another address, or a firewall that does not let us in",
        "start it, allow SSH from here, or correct seatable-vllm:machine.ssh",
    ),
    Failure(
        "ssh-too-many",
        r"kex_exchange_identification: |client version 1\.\d+ is too new|Session open refused by peer",
        "the SSH server hangs up on new connections: too many at once",
        "on the machine, set MaxStartups 100:30:200 in /etc/ssh/sshd_config, then run systemctl reload ssh",
        passing=True,
    ),
    Failure(
        "docker-not-installed",
        r"docker: command not found|\bdocker: not found|the docker command is not (?:there|installed)",
        "Docker is not installed on the machine",
        "install Docker Engine 20.10 or newer there (on this computer, scripts/up as root does it)",
    ),
    Failure(
        "docker-behind-ssh",
        r"Cannot connect to the Docker daemon at http://docker\.example\.com",
        "SSH works, but Docker does not answer this user on the machine",
        "there: systemctl start docker, and usermod -aG docker USER for the user in seatable-vllm:machine.ssh",
    ),
    Failure(
        "ssh-cut",
        r"client_loop: send disconnect|Connection to \S+ closed by remote host|Timeout, server \S+ not responding"
        r"|Read from remote host \S+: |Connection (?:closed|reset) by \S+ port \d+"
        r"|exit status 255: running \"ssh |failed with status 255:",
        "the connection to the machine was cut, or the machine went down, while something ran there",
        "see that the machine and the way to it hold, then run scripts/up again: it goes on from here",
        passing=True,
    ),
)
