"""The programs Pagemill is compared with, and its own parts alone; each is started as a process of its own."""
