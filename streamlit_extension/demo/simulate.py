"""Simulated users: `python -m streamlit_extension.demo.simulate URL N`. Ends when its standard input does."""

from __future__ import annotations

import asyncio
import random
import sys

from websockets.exceptions import WebSocketException

from streamlit_extension.demo.client import StreamlitClient

#: Seconds that a user looks at a page before doing the next thing: the bounds.
THINKING_S = (0.8, 4.0)
#: Seconds before a user comes back after a lost connection: the bounds.
RETURN_S = (0.5, 2.0)
PAGES = ("overview", "clients", "projects", "tasks", "reports", "operations")


async def user(url: str, chance: random.Random) -> None:
    """One user, for ever: visits, leaves, and comes back after a restart with the same session."""
    session_id: str | None = None
    while True:
        try:
            async with StreamlitClient(url, session_id=session_id) as client:
                await client.wait_finished(1)
                session_id = client.session_id
                for _ in range(chance.randint(5, 25)):
                    await asyncio.sleep(chance.uniform(*THINKING_S))
                    await act(client, chance)
                session_id = None
        except (OSError, TimeoutError, WebSocketException):
            pass  # the application restarts: that is part of what is simulated
        await asyncio.sleep(chance.uniform(*RETURN_S))


async def act(client: StreamlitClient, chance: random.Random) -> None:
    """One thing that a user does."""
    labels = {widget.label for widget in client.page.widgets.values()}
    finished = client.runs_finished + 1
    doing = chance.random()
    if doing < 0.45:
        names = [name for name in client.pages.values() if name.lower() in PAGES or not name]
        await client.open_page(chance.choice(names or list(client.pages.values())))
    elif "Search" in labels and doing < 0.75:
        await client.set("Search", chance.choice(("a", "no", "lab", "")))
    elif "Add client" in labels and doing < 0.85:
        await client.set("Name", f"Client {chance.randrange(10**9):09d}", rerun=False)
        await client.set("Industry of the client", chance.choice(("Energy", "Retail", "Media")), rerun=False)
        await client.set("Contact", "Robin Example", rerun=False)
        await client.click("Add client")
    elif "Compute forecast" in labels and doing < 0.8:
        await client.click("Compute forecast")
    elif "Break something" in labels and doing < 0.6:
        await client.click("Break something")
    elif "Write a log line" in labels:
        await client.click("Write a log line")
    elif "Start" in labels and doing < 0.8:
        await client.click("Start")
    elif "Complete project" in labels and doing > 0.97:
        await client.click("Complete project")
    else:
        await client.rerun()
    await client.wait_finished(finished)


async def simulate(url: str, users: int) -> None:
    """Let `users` users work until the parent process is gone."""
    tasks = [asyncio.create_task(user(url, random.Random(number))) for number in range(users)]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(simulate(sys.argv[1], int(sys.argv[2])))
