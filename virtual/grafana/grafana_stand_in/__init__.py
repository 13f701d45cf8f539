"""A stand-in for Grafana: small, and faithful in what tig-pi uses of it."""

VERSION = "12.2.0-standin"
HOME = "https://grafana.com"
NOTICE = "This is a stand-in for Grafana, not Grafana. The real one comes from https://grafana.com."
