"""OpenTelemetry for agentlightning: traces in, spans out, over OTLP/HTTP."""
