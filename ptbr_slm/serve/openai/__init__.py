"""OpenAI's routes, a file each: the body as it comes, its checks, and the wire form of what is generated."""
