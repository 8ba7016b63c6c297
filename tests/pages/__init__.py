"""What the page is tried on: a server of some workflows in a process of its own."""
