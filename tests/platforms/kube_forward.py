"""Forwards TCP connections until SIGTERM: `python kube_forward.py LISTEN:PORT=TARGET:PORT …`. It needs only the standard library.

On the stand it does what a real network does: the API server and the registry listen on loopback there, where no pod reaches them.
"""

import asyncio
import signal
import sys

CHUNK_BYTES = 1 << 16


async def forward(pair):
    """Listen at one address, and pass each connection on to the other. Several programs may listen at the same one."""
    (host, port), target = (where.rsplit(":", 1) for where in pair.split("="))

    async def connect(reader, writer):
        try:
            there = await asyncio.open_connection(*target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    await asyncio.start_server(connect, host, int(port), reuse_port=True)


async def copy(reader, writer):
    """Copy one direction to its end."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # one side has gone: so does the other
    finally:
        writer.close()


async def main(pairs):
    """Forward until SIGTERM, which the first process of a container otherwise ignores."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await asyncio.gather(*map(forward, pairs))
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
