"""A mail server for the tests of codes by email: real SMTP on loopback, by aiosmtpd.

Writes {"port": N} to standard output, then a line of JSON for each letter that it took. What it is asked to be:

  plain                     takes letters, and knows no TLS
  starttls CERT KEY         takes them after STARTTLS alone, from whoever signs in as relay@example.com with "canary of smtp"
  tls CERT KEY              the same, with TLS from the first byte
  refusing                  names whom it does not take
  slow                      takes a connection, and says nothing
"""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

WAY, FILES = sys.argv[1], sys.argv[2:]


class Handler:
    """Tells what came."""

    async def handle_RCPT(self, server, session, envelope, address, options):
        if WAY == "refusing":
            return f"550 5.1.1 <{address}>: no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        letter = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None or WAY == "tls",
            "user": session.auth_data.login.decode() if session.authenticated else None,
            "data": envelope.content.decode(),
        }
        print(json.dumps(letter), flush=True)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    """One person has an account here."""
    right = LoginPassword(b"relay@example.com", b"canary of smtp")
    return AuthResult(success=data == right, handled=False, auth_data=data)


def protocol():
    """A connection's, as WAY says."""
    loop = asyncio.get_running_loop()
    if WAY == "slow":
        return asyncio.Protocol()
    if WAY == "starttls":
        return SMTP(Handler(), tls_context=context(), require_starttls=True, authenticator=authenticate,
                    auth_required=True, loop=loop)
    if WAY == "tls":
        return SMTP(Handler(), authenticator=authenticate, auth_required=True, auth_require_tls=False, loop=loop)
    return SMTP(Handler(), loop=loop)


def context():
    """The certificate that was given."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*FILES)
    return made


async def main():
    loop = asyncio.get_running_loop()
    tls = context() if WAY == "tls" else None
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


asyncio.run(main())
