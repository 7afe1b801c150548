"""The ServerApp of the installed package fgl-app."""

from fgl_app.server_app import app

__all__ = ["app"]
