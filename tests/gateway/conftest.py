from served_policy import ask, client, engine, policy, write

__all__ = ["ask", "client", "engine", "policy", "write"]
