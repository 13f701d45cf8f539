"""A stand-in for Grafana: a small program that behaves like Grafana in everything that tig-pi uses."""

VERSION = "12.2.0-standin"
HOME = "https://grafana.com"
NOTICE = "This is a stand-in for Grafana, not Grafana. The real one comes from https://grafana.com."
